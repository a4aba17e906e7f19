//! The store of a home's tables, which notices that the log finds no room: what lies above it
//! tries again for ever and says nothing, and those who wait for a commit are to hear of it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use yadokari_store::Kind;

use super::trouble::Troubles;

/// The folder of the log among the tables'.
const LOG_FOLDER: &str = "/wal/";

/// A store whose full log shows in a home's troubles.
#[derive(Debug)]
pub struct NoticeStore {
    inner: Arc<dyn ObjectStore>,
    troubles: Arc<Troubles>,
    home: String,
}

impl NoticeStore {
    /// `inner`, for the tables of `home`.
    pub fn new(inner: Arc<dyn ObjectStore>, troubles: Arc<Troubles>, home: &str) -> Self {
        Self { inner, troubles, home: home.to_owned() }
    }
}

impl fmt::Display for NoticeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl ObjectStore for NoticeStore {
    async fn put_opts(
        &self,
        at: &Path,
        data: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let result = self.inner.put_opts(at, data, options).await;
        if at.as_ref().contains(LOG_FOLDER) {
            let full = result.as_ref().err().filter(|e| yadokari_store::kind(e) == Kind::NoSpace);
            if let Some(error) = full {
                self.troubles.store_fails(&self.home, at, error);
            }
            // Whoever writes the log tries again until it succeeds, which ends this.
            self.troubles.set_log_full(full.is_some());
        }
        result
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
