//! Multipart uploads: one temporary file that the parts are written into at their offsets.

use super::root::Temporary;
use super::{FileStore, STORE, write};
use crate::error::Detail;
use async_trait::async_trait;
use object_store::path::Path;
use object_store::{
    Attributes, MultipartUpload, PutMode, PutPayload, PutResult, Result, UploadPart,
};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct FileUpload {
    store: FileStore,
    location: Path,
    attributes: Attributes,
    /// None once the upload was completed or aborted.
    temporary: Option<Arc<Temporary>>,
    length: u64,
}

impl FileUpload {
    /// Blocks.
    pub(super) fn begin(
        store: FileStore,
        location: Path,
        attributes: Attributes,
    ) -> Result<FileUpload> {
        super::names::object_file(&location)?;
        let made = store.root.temporary();
        let temporary = made.map_err(|error| write::io_error("put", &location, error))?;
        let temporary = Some(Arc::new(temporary));
        Ok(FileUpload { store, location, attributes, temporary, length: 0 })
    }

    fn ended(&self, why: &str) -> object_store::Error {
        let object = self.location.to_string();
        Detail::Invalid { operation: "multipart", object, why: why.to_owned() }.at(STORE)
    }
}

#[async_trait]
impl MultipartUpload for FileUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let Some(temporary) = self.temporary.clone() else {
            let error = self.ended("the upload has ended");
            return Box::pin(async move { Err(error) });
        };
        let (store, location) = (self.store.clone(), self.location.clone());
        let mut offset = self.length;
        self.length += data.content_length() as u64;
        Box::pin(async move {
            let write_part = move |_: &FileStore| {
                for chunk in data.iter() {
                    let written = temporary.file.write_all_at(chunk, offset);
                    written.map_err(|error| write::io_error("put", &location, error))?;
                    offset += chunk.len() as u64;
                }
                Ok(())
            };
            store.hop(write_part).await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let temporary = self.temporary.take().and_then(Arc::into_inner);
        let Some(mut temporary) = temporary else {
            return Err(self.ended("parts are still being written, or it has ended"));
        };
        let (location, length) = (self.location.clone(), self.length);
        let attributes = self.attributes.clone();
        let finish = move |store: &FileStore| {
            let at_end = temporary.file.seek(SeekFrom::Start(length));
            at_end.map_err(|error| write::io_error("put", &location, error))?;
            let writer = store.writer(&location);
            writer.finish(temporary, length, &PutMode::Overwrite, &attributes)
        };
        self.store.hop(finish).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.temporary = None;
        Ok(())
    }
}
