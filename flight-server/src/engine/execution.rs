//! The instance that runs federated statements, locked down after set-up (docs/contract.md, "Running a query").

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use translator::catalog::CATALOG_NAME;
use translator::emit::MIRROR_CATALOG;
use translator::quote::{Ident, duckdb_text};

use super::duckdb::{Connection, Database, DuckError};
use super::http_log;
use super::mirror::MirrorStore;
use crate::lake::S3Credentials;
use crate::s3_requests::{S3RequestCount, S3Requests};

/// How the instance is set up.
#[derive(Debug, Clone)]
pub(crate) struct EngineSettings {
    /// Such as `4GiB` or `80%`; DuckDB's default when absent.
    pub(crate) memory_limit: Option<String>,
    pub(crate) threads: Option<usize>,
    pub(crate) temp_directory: PathBuf,
    pub(crate) temp_directory_limit: Option<String>,
    pub(crate) extension_directory: Option<PathBuf>,
    pub(crate) lake: LakeAccess,
}

/// What of the outside the instance may read: the lake and nothing else.
#[derive(Debug, Clone)]
pub(crate) enum LakeAccess {
    /// A local folder.
    Folder(String),
    /// `s3://bucket/prefix`, read through httpfs.
    S3 { prefix: String, credentials: Option<S3Credentials> },
}

/// Rows and time of each operator, to be read after a statement and printed nowhere.
const PROFILING: &str = r#"SET enable_profiling = 'no_output'; SET custom_profiling_settings = '{"OPERATOR_NAME": "true", "OPERATOR_CARDINALITY": "true", "OPERATOR_TIMING": "true", "EXTRA_INFO": "true"}'"#;

/// The executing instance.
#[derive(Debug)]
pub(crate) struct Engine {
    database: Arc<Database>,
    mirrors: Arc<MirrorStore>,
    /// The statement that made the secret in force.
    secret: Mutex<String>,
    temp_directory: PathBuf,
    /// What it asked of S3.
    requests: Arc<S3Requests>,
}

/// Settings that every instance of ours has.
pub(super) fn fixed_settings() -> Vec<(&'static str, String)> {
    [
        ("autoinstall_known_extensions", "false"),
        ("autoload_known_extensions", "false"),
        ("allow_community_extensions", "false"),
        ("allow_persistent_secrets", "false"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

impl Engine {
    pub(crate) fn open(settings: &EngineSettings) -> Result<Self, DuckError> {
        let mut config = fixed_settings();
        config.push(("temp_directory", settings.temp_directory.to_string_lossy().into_owned()));
        let optional = [
            ("memory_limit", settings.memory_limit.clone()),
            ("threads", settings.threads.map(|threads| threads.to_string())),
            (
                "extension_directory",
                settings.extension_directory.as_ref().map(|path| path.to_string_lossy().into_owned()),
            ),
        ];
        config.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let temp_directory = settings.temp_directory.clone();
        let requests = Arc::new(S3Requests::default());
        let database = Database::open(&config)?;
        let mirrors = Arc::new(MirrorStore::new(&database));
        let engine =
            Self { database, mirrors, secret: Mutex::default(), temp_directory, requests: Arc::clone(&requests) };
        let connection = engine.database.connect()?;
        engine.database.add_hidden_function(&connection)?;
        connection.execute(&format!("ATTACH ':memory:' AS {}; SET GLOBAL TimeZone = 'UTC'", Ident(CATALOG_NAME)))?;
        // Nothing that users write can name it: only entities are admitted.
        connection.execute(&format!("ATTACH ':memory:' AS {}", Ident(MIRROR_CATALOG)))?;
        if let Some(limit) = &settings.temp_directory_limit {
            // Given at start-up it is shown and not obeyed: only the running instance passes it on.
            connection.execute(&format!("SET GLOBAL max_temp_directory_size = {}", duckdb_text(limit)))?;
        }
        let allowed = match &settings.lake {
            LakeAccess::Folder(path) => {
                // DuckDB knows local files by the second they were changed in: of one that is replaced in place it would go
                // on reading old footers and old blocks.
                connection.execute("SET GLOBAL parquet_metadata_cache = false")?;
                connection.execute("SET GLOBAL enable_external_file_cache = false")?;
                format!("{path}/")
            }
            LakeAccess::S3 { prefix, credentials } => {
                connection.execute("LOAD httpfs")?;
                // Footers stay parsed as long as their files keep their etag.
                connection.execute("SET GLOBAL parquet_metadata_cache = true")?;
                engine.database.listen_to_http(&connection, move |entry| http_log::count(&requests, entry))?;
                if let Some(credentials) = credentials {
                    engine.set_credentials(prefix, credentials)?;
                }
                format!("{prefix}/")
            }
        };
        connection.execute(&format!("SET allowed_directories = [{}]", duckdb_text(&allowed)))?;
        connection.execute("SET enable_external_access = false")?;
        // Queries are measured; nothing else can be set from here on.
        connection.execute("SET allowed_configs = ['enable_profiling', 'custom_profiling_settings']")?;
        connection.execute("SET lock_configuration = true")?;
        Ok(engine)
    }

    /// Puts S3 credentials in force when they are other than before; running statements keep those they started with.
    pub(crate) fn set_credentials(&self, prefix: &str, credentials: &S3Credentials) -> Result<(), DuckError> {
        let sql = secret_sql(prefix, credentials);
        let mut secret = self.secret.lock().unwrap_or_else(PoisonError::into_inner);
        if *secret != sql {
            self.database.connect()?.execute(&sql).map_err(|error| DuckError {
                kind: error.kind,
                // DuckDB's own message quotes the statement, and with it the secret.
                message: "cannot set the S3 credentials".to_owned(),
            })?;
            *secret = sql;
        }
        Ok(())
    }

    /// Requests of httpfs to S3 since the instance was opened.
    pub(crate) fn s3_requests(&self) -> Vec<S3RequestCount> {
        self.requests.counts()
    }

    /// The tables of dirty rows that queries share.
    pub(crate) fn mirrors(&self) -> &Arc<MirrorStore> {
        &self.mirrors
    }

    /// Where this instance spills to.
    pub(crate) fn temp_directory(&self) -> &Path {
        &self.temp_directory
    }

    /// A connection for one query: its temporary tables go with it. It profiles what it runs.
    pub(crate) fn connect(&self) -> Result<Connection, DuckError> {
        let connection = self.database.connect()?;
        connection.execute(&format!("USE {}; {PROFILING}", Ident(CATALOG_NAME)))?;
        Ok(connection)
    }
}

fn secret_sql(prefix: &str, credentials: &S3Credentials) -> String {
    let mut fields = vec![
        "TYPE s3".to_owned(),
        format!("SCOPE {}", duckdb_text(prefix)),
        format!("REGION {}", duckdb_text(&credentials.region)),
        format!("USE_SSL {}", credentials.use_ssl),
        format!("URL_STYLE '{}'", if credentials.path_style { "path" } else { "vhost" }),
        format!("KEY_ID {}", duckdb_text(&credentials.key_id)),
        format!("SECRET {}", duckdb_text(credentials.secret.expose())),
    ];
    if let Some(endpoint) = &credentials.endpoint {
        fields.push(format!("ENDPOINT {}", duckdb_text(endpoint)));
    }
    if let Some(token) = &credentials.session_token {
        fields.push(format!("SESSION_TOKEN {}", duckdb_text(token.expose())));
    }
    format!("CREATE OR REPLACE TEMPORARY SECRET tc_lake ({})", fields.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_tells_what_its_statement_measured() {
        let directory = tempfile::tempdir().unwrap();
        let settings = EngineSettings {
            memory_limit: None,
            threads: Some(1),
            temp_directory: directory.path().join("spill"),
            temp_directory_limit: None,
            extension_directory: None,
            lake: LakeAccess::Folder(directory.path().display().to_string()),
        };
        let connection = Engine::open(&settings).unwrap().connect().unwrap();
        let mut stream = connection.stream("SELECT i FROM range(5000) r(i) WHERE i % 2 = 0").unwrap();
        while stream.next().unwrap().is_some() {}
        drop(stream);
        let profile = connection.profile().expect("a profile");
        let top = &profile.children[0];
        assert_eq!(top.rows, 2500, "{profile:#?}");
        assert!(!top.name.is_empty(), "{profile:#?}");
        // Nothing else can be set.
        assert!(connection.execute("SET memory_limit = '1GB'").is_err());
    }
}
