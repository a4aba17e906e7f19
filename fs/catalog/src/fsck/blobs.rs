//! What repositories hold against records and parts.

use std::collections::HashMap;

use futures::StreamExt;
use object_store::path::Path;

use super::Check;
use crate::blob::{Life, PARTS, Record, record_path};
use crate::cell::Cell;
use crate::digest::Digest;
use crate::error::{CatalogError, Result};
use crate::hash::Hasher;
use crate::types::ReadOptions;

impl Check<'_> {
    pub(super) async fn blobs(&mut self, deep: bool) -> Result<()> {
        let mut held: Vec<_> = std::mem::take(&mut self.held).into_iter().collect();
        held.sort_unstable_by_key(|(digest, _)| *digest);
        for (digest, (size, repo)) in held {
            self.report.blobs += 1;
            let cell = match self.catalog.inner.blobs.record(&digest).await {
                Ok(cell) => cell,
                Err(CatalogError::Corrupt { object, why }) => {
                    self.find(object, format!("{why}; {repo} needs it"), true);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let problem = match &cell {
                None => Some("it does not exist".to_owned()),
                Some(cell) if cell.value.life == Life::Gone => Some("it is gone".to_owned()),
                Some(cell) if cell.value.size != size => {
                    Some(format!("it has {} bytes instead of {size}", cell.value.size))
                }
                Some(cell) => self.parts(&digest, cell, deep).await?,
            };
            if let Some(problem) = problem {
                let problem = format!("{problem}; {repo} needs it");
                self.find(record_path(&digest), problem, true);
            }
        }
        Ok(())
    }

    /// What is wrong with a blob's bytes.
    async fn parts(
        &self,
        digest: &Digest,
        cell: &Cell<Record>,
        deep: bool,
    ) -> Result<Option<String>> {
        if let Some(parts) = &cell.value.parts {
            let below = Path::from_iter([PARTS, parts.upload.as_str()]);
            let data = &*self.catalog.inner.store.data;
            let found = self.catalog.objects(data, &below).await?;
            let found: HashMap<Path, u64> = found.into_iter().map(|(p, _, n)| (p, n)).collect();
            for (path, (_, _, bytes)) in parts.paths().zip(&parts.list) {
                match found.get(&path) {
                    None => return Ok(Some(format!("its part {path} does not exist"))),
                    Some(found) if found != bytes => {
                        return Ok(Some(format!("its part {path} has {found} bytes of {bytes}")));
                    }
                    Some(_) => {}
                }
            }
            if parts.bytes() != cell.value.size {
                return Ok(Some("its parts are not as long as it".to_owned()));
            }
        } else if cell.bytes.len() as u64 != cell.value.size {
            return Ok(Some("its bytes are not as many as it says".to_owned()));
        }
        if !deep {
            return Ok(None);
        }
        let mut hasher = Hasher::new(digest.algorithm());
        let options = ReadOptions::default();
        let mut pieces = self.catalog.inner.blobs.stream(cell, 0..cell.value.size, options);
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => hasher.update(&piece),
                Err(CatalogError::Corrupt { why, .. }) => return Ok(Some(why)),
                Err(error) => return Err(error),
            }
        }
        let is_right = hasher.finish() == *digest;
        Ok((!is_right).then(|| "its bytes have another digest".to_owned()))
    }
}
