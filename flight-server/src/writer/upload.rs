//! From a local file to an object of S3: at once, or in parts when it is large.
//!
//! No listing shows the parts of an upload that never ended, and they cost money. So the id of an upload stands in a small
//! object under `_staging` while it is under way, and `gc` ends the uploads whose writer died.
//!
//! ```text
//! upload created ── `NAME.upload` written ── parts ── completed, the object is there ── `NAME.upload` deleted
//! ```

use std::fs::File;
use std::io::{Read, Seek};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::ready;
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Location;
use object_store::{ObjectStoreExt, PutMode, PutOptions};
use serde_json::{Value as Json, json};

use super::STAGING;
use crate::failpoint::failpoint;
use crate::lake::Lake;

/// Objects from this size on go up in parts.
const MULTIPART_FROM: u64 = 16 << 20;
const PART: usize = 8 << 20;
/// Parts on their way at once: with [`PART`] this bounds the memory of an upload.
const PARTS_AT_ONCE: usize = 4;
const NOTE_SUFFIX: &str = ".upload";

/// Uploads a file; nothing is visible before all of it is.
pub(super) async fn upload(lake: &Lake, path: &str, mut file: File, bytes: u64) -> anyhow::Result<()> {
    file.rewind()?;
    let location = lake.location(path);
    if bytes < MULTIPART_FROM {
        let content = read_part(file, usize::try_from(MULTIPART_FROM)?).await?;
        let options = PutOptions { mode: PutMode::Overwrite, ..PutOptions::default() };
        lake.objects().put_opts(&location, content.into(), options).await?;
        return Ok(());
    }
    let store = lake.multipart().context("a local lake takes no uploads")?;
    let id = store.create_multipart(&location).await?;
    let note = lake.location(&note_path(path)?);
    let sent = async {
        let content = json!({"path": path, "upload_id": id}).to_string();
        lake.objects().put(&note, content.into_bytes().into()).await?;
        let parts = send_parts(&store, &location, &id, file).await?;
        store.complete_multipart(&location, &id, parts).await?;
        anyhow::Ok(())
    };
    if let Err(error) = sent.await {
        // What can't be ended now is left to gc, as long as its note is there.
        match store.abort_multipart(&location, &id).await {
            Ok(()) => forget(lake, &note).await,
            Err(abort) => tracing::warn!(%abort, "parts of a failed upload stay in the bucket until gc runs"),
        }
        return Err(error);
    }
    failpoint("upload.completed").await;
    forget(lake, &note).await;
    Ok(())
}

/// Sends all parts. After a failure no more are begun, but those on their way end first: the parts that arrive while an upload
/// is being aborted may stay (S3 API reference, `AbortMultipartUpload`).
async fn send_parts(
    store: &Arc<AmazonS3>,
    location: &Location,
    id: &String,
    file: File,
) -> anyhow::Result<Vec<PartId>> {
    let failed = &AtomicBool::new(false);
    let parts = futures::stream::try_unfold((file, 0), |(file, index)| async move {
        let part = read_part(file.try_clone()?, PART).await?;
        anyhow::Ok((!part.is_empty()).then_some(((index, part), (file, index + 1))))
    });
    let sends = parts.take_while(|_| ready(!failed.load(Ordering::Relaxed))).map(|part| async move {
        let sent = async {
            let (index, part) = part?;
            let sent = store.put_part(location, id, index, part.into()).await?;
            failpoint("upload.part").await;
            anyhow::Ok(sent)
        };
        sent.await.inspect_err(|_| failed.store(true, Ordering::Relaxed))
    });
    let ended: Vec<_> = sends.buffered(PARTS_AT_ONCE).collect().await;
    ended.into_iter().collect()
}

/// Reads at most so many bytes, from where the last read ended.
async fn read_part(file: File, most: usize) -> anyhow::Result<Bytes> {
    let read = tokio::task::spawn_blocking(move || -> std::io::Result<Vec<u8>> {
        let mut part = Vec::new();
        file.take(most as u64).read_to_end(&mut part)?;
        Ok(part)
    });
    Ok(read.await??.into())
}

/// A note that stays behind costs nothing: gc finds the object there and deletes the note.
async fn forget(lake: &Lake, note: &Location) {
    if let Err(error) = lake.objects().delete(note).await {
        tracing::warn!(%error, "the note of an upload stays in the bucket until gc runs");
    }
}

fn note_path(path: &str) -> anyhow::Result<String> {
    let (directory, name) = path.rsplit_once('/').context("a file without a directory")?;
    Ok(format!("{directory}/{STAGING}/{name}{NOTE_SUFFIX}"))
}

/// Whether an object is the note of an upload.
pub(super) fn is_note(path: &str) -> bool {
    path.ends_with(NOTE_SUFFIX)
}

/// Ends the upload that a note tells of, unless it was completed. The note itself stays.
pub(super) async fn end_upload(lake: &Lake, note: &str) -> anyhow::Result<()> {
    let Some(store) = lake.multipart() else { bail!("`{note}`: a local lake takes no uploads") };
    let content = match lake.objects().get(&lake.location(note)).await {
        Ok(content) => content.bytes().await?,
        Err(object_store::Error::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{note}`")),
    };
    let parsed: Json = serde_json::from_slice(&content).with_context(|| format!("`{note}` is no note of an upload"))?;
    let (Some(path), Some(id)) = (parsed["path"].as_str(), parsed["upload_id"].as_str()) else {
        bail!("`{note}` is no note of an upload");
    };
    let location = lake.location(path);
    match lake.objects().head(&location).await {
        Ok(_) => return Ok(()),
        Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot look for `{path}`")),
    }
    match store.abort_multipart(&location, &id.to_owned()).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot end the upload of `{path}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_stands_in_the_staging_directory() {
        let note = note_path("base/7/m-1.parquet").unwrap();
        assert_eq!(note, "base/7/_staging/m-1.parquet.upload");
        assert!(is_note(&note) && !is_note("base/7/_staging/m-1.parquet"));
    }
}
