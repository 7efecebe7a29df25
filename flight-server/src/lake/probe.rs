//! Whether the lake's objects can be read, not just listed.

use std::sync::{Arc, PoisonError};

use object_store::ObjectStoreExt;
use translator::catalog::Entity;

use super::{Lake, LakeError};

/// The last bytes of every Parquet file.
const MAGIC: &[u8] = b"PAR1";

impl Lake {
    /// Reads the end of a real file: rights to list are not rights to read, and credentials expire. Without any file of
    /// these entities the listing is all there is to try.
    ///
    /// # Errors
    /// Unavailable, Misconfigured; Corrupt when the file is no Parquet file.
    pub async fn probe_object(&self, entities: &[Arc<Entity>]) -> Result<(), LakeError> {
        self.probe().await?;
        let known = self.probed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((path, bytes)) = known
            && self.read_end(&path, bytes).await.is_ok()
        {
            return Ok(());
        }
        for entity in entities {
            let listing = self.list(entity).await?;
            if let Some(file) = listing.files.iter().find(|file| file.bytes >= MAGIC.len() as u64) {
                self.read_end(&file.path, file.bytes).await?;
                let known = Some((file.path.clone(), file.bytes));
                *self.probed.lock().unwrap_or_else(PoisonError::into_inner) = known;
                return Ok(());
            }
        }
        Ok(())
    }

    async fn read_end(&self, path: &str, bytes: u64) -> Result<(), LakeError> {
        let lake = self.url.to_string();
        let end = bytes - MAGIC.len() as u64..bytes;
        let read = self.store.objects.get_range(&self.location(path), end).await;
        let read = read.map_err(|error| LakeError::of_file(&lake, path, error))?;
        if read == MAGIC {
            Ok(())
        } else {
            Err(LakeError::corrupt(&lake, path, "it doesn't end as a Parquet file does"))
        }
    }
}
