//! What can go wrong with the lake, by kind.

use std::sync::Arc;

/// A failure of the lake. The text names files by their path in the lake; it holds no credentials.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct LakeError {
    kind: LakeErrorKind,
    message: String,
    #[source]
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of failure that callers act upon.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LakeErrorKind {
    /// Not reachable, or its root directory is missing: later may work.
    Unavailable,
    /// Wrong bucket, region, credentials or rights: an operator must act.
    Misconfigured,
    /// This file is no Parquet file that can be read.
    Corrupt { path: String },
    /// This file has vanished since it was listed.
    NotFound { path: String },
}

impl LakeError {
    pub(super) fn new(kind: LakeErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(super) fn with_source(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.source = Some(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(source.into())));
        self
    }

    pub fn kind(&self) -> &LakeErrorKind {
        &self.kind
    }

    /// A failure that speaks of the store as a whole (listing, probing).
    pub(super) fn of_store(lake: &str, error: object_store::Error) -> Self {
        let (kind, reason) = match &error {
            object_store::Error::NotFound { .. } => (LakeErrorKind::Misconfigured, "the bucket doesn't exist"),
            _ => sort(&error),
        };
        Self::new(kind, format!("lake {lake}: {reason}")).with_source(error)
    }

    /// A failure to read one file; `path` is relative to the lake's root.
    pub(super) fn of_file(lake: &str, path: &str, error: object_store::Error) -> Self {
        let (kind, reason) = match &error {
            object_store::Error::NotFound { .. } => {
                (LakeErrorKind::NotFound { path: path.to_owned() }, "the file has vanished")
            }
            // A range beyond the end: the object is not the one that was listed, or was cut.
            object_store::Error::Generic { source, .. } if is_range_error(&source.to_string()) => {
                (LakeErrorKind::Corrupt { path: path.to_owned() }, "the file is shorter than it was when it was listed")
            }
            _ => sort(&error),
        };
        Self::new(kind, format!("lake {lake}, file `{path}`: {reason}")).with_source(error)
    }

    /// A footer that cannot be read; `path` is relative to the lake's root.
    pub(super) fn of_footer(lake: &str, path: &str, error: parquet::errors::ParquetError) -> Self {
        match error {
            parquet::errors::ParquetError::External(source) => match source.downcast::<object_store::Error>() {
                Ok(error) => Self::of_file(lake, path, *error),
                Err(source) => Self::corrupt(lake, path, &source.to_string()),
            },
            error => Self::corrupt(lake, path, &error.to_string()).with_source(error),
        }
    }

    /// A file that is in order and still can't be read, for this `reason`.
    pub(super) fn unreadable(lake: &str, path: &str, reason: &str) -> Self {
        let kind = LakeErrorKind::Corrupt { path: path.to_owned() };
        Self::new(kind, format!("lake {lake}, file `{path}`: {reason}"))
    }

    pub(super) fn corrupt(lake: &str, path: &str, reason: &str) -> Self {
        let kind = LakeErrorKind::Corrupt { path: path.to_owned() };
        Self::new(kind, format!("lake {lake}, file `{path}`: not a readable Parquet file ({reason})"))
    }
}

/// Whether the object has no such bytes, as S3 and the local store say it.
fn is_range_error(text: &str) -> bool {
    ["416 Range Not Satisfiable", "Requested range was invalid", "Wanted range starting at", "Out of range of file"]
        .iter()
        .any(|phrase| text.contains(phrase))
}

fn sort(error: &object_store::Error) -> (LakeErrorKind, &'static str) {
    use object_store::Error;
    match error {
        Error::PermissionDenied { .. } => (LakeErrorKind::Misconfigured, "access is denied"),
        Error::Unauthenticated { .. } => (LakeErrorKind::Misconfigured, "the credentials are not accepted"),
        Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } | Error::NotSupported { .. } => {
            (LakeErrorKind::Misconfigured, "it cannot be used as it is set up")
        }
        Error::Generic { source, .. } => {
            let text = source.to_string();
            let has = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
            if has(&["NoSuchBucket", "InvalidBucketName"]) {
                (LakeErrorKind::Misconfigured, "the bucket doesn't exist")
            } else if has(&["PermanentRedirect", "AuthorizationHeaderMalformed", "configured region"]) {
                (LakeErrorKind::Misconfigured, "the bucket is in another region")
            } else if has(&["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"]) {
                (LakeErrorKind::Misconfigured, "the credentials are not accepted")
            } else if has(&["ExpiredToken"]) {
                (LakeErrorKind::Unavailable, "the temporary credentials have expired")
            } else if has(&["AccessDenied", "403 Forbidden", "401 Unauthorized"]) {
                (LakeErrorKind::Misconfigured, "access is denied")
            } else {
                (LakeErrorKind::Unavailable, "it cannot be reached")
            }
        }
        _ => (LakeErrorKind::Unavailable, "it cannot be reached"),
    }
}
