//! Manifests and the other small objects of the tables, with a checksum each: SlateDB checks the
//! blocks of its tables and logs, but a flipped bit in a manifest would show an empty home.
//!
//! Every object of the tables but `.sst` ends with the BLAKE3 hash of what is before (32 bytes)
//! and a magic (8 bytes). Damage is an error that is not tried again; so is a table that ends
//! before what is asked of it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};
use slatedb_common::retry::NonRetryable;
use yadokari_store::error::Detail;

const MAGIC: &[u8; 8] = b"YADOSEAL";
const HASH_BYTES: usize = 32;
const SEAL_BYTES: usize = HASH_BYTES + MAGIC.len();

/// A store of tables whose small objects carry checksums.
#[derive(Clone, Debug)]
pub struct SealStore {
    inner: Arc<dyn ObjectStore>,
}

impl SealStore {
    /// `inner`, with checksums.
    pub fn over(inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(Self { inner })
    }

    /// A table is asked for in parts: what it does not have was cut off.
    async fn explain_range(&self, at: &Path, start: u64, error: Error) -> Error {
        match self.inner.head(at).await {
            Ok(meta) if meta.size <= start => {
                damaged(at, format!("it ends at byte {}, {start} is needed", meta.size))
            }
            _ => error,
        }
    }
}

fn is_sealed(at: &Path) -> bool {
    !at.as_ref().ends_with(".sst")
}

fn damaged(at: &Path, why: String) -> Error {
    let detail = Detail::Corrupt { object: at.to_string(), why };
    Error::Generic { store: "tables", source: Box::new(NonRetryable(Box::new(detail))) }
}

fn seal(data: PutPayload) -> PutPayload {
    let mut hasher = blake3::Hasher::new();
    for part in data.iter() {
        hasher.update(part);
    }
    let mut seal = hasher.finalize().as_bytes().to_vec();
    seal.extend_from_slice(MAGIC);
    data.into_iter().chain([Bytes::from(seal)]).collect()
}

fn unseal(at: &Path, all: &Bytes) -> Result<Bytes> {
    let Some(end) = all.len().checked_sub(SEAL_BYTES) else {
        return Err(damaged(at, format!("it has only {} bytes", all.len())));
    };
    let content = all.slice(..end);
    let hash = blake3::hash(&content);
    if all[end..end + HASH_BYTES] != hash.as_bytes()[..] || all[end + HASH_BYTES..] != MAGIC[..] {
        return Err(damaged(at, "its checksum is wrong".to_owned()));
    }
    Ok(content)
}

fn shown(mut meta: ObjectMeta) -> ObjectMeta {
    if is_sealed(&meta.location) {
        meta.size = meta.size.saturating_sub(SEAL_BYTES as u64);
    }
    meta
}

fn part_of(content: &Bytes, range: Option<GetRange>) -> Result<Range<u64>> {
    let len = content.len() as u64;
    let range = range.map_or(Ok(0..len), |range| range.as_range(len));
    range.map_err(|error| Error::Generic { store: "tables", source: Box::new(error) })
}

impl fmt::Display for SealStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl ObjectStore for SealStore {
    async fn put_opts(
        &self,
        at: &Path,
        data: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let data = if is_sealed(at) { seal(data) } else { data };
        self.inner.put_opts(at, data, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if is_sealed(at) {
            let source = "small objects of tables are written in one go".into();
            return Err(Error::NotSupported { source });
        }
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, mut options: GetOptions) -> Result<GetResult> {
        if !is_sealed(at) {
            let start = match &options.range {
                Some(GetRange::Bounded(range)) => Some(range.start),
                _ => None,
            };
            let got = self.inner.get_opts(at, options).await;
            return match (got, start) {
                (Err(error @ Error::Generic { .. }), Some(start)) => {
                    Err(self.explain_range(at, start, error).await)
                }
                (got, _) => got,
            };
        }
        if options.head {
            let mut result = self.inner.get_opts(at, options).await?;
            result.meta = shown(result.meta);
            return Ok(result);
        }
        let range = options.range.take();
        let result = self.inner.get_opts(at, options).await?;
        let (meta, attributes) = (shown(result.meta.clone()), result.attributes.clone());
        let extensions = result.extensions.clone();
        let content = unseal(at, &result.bytes().await?)?;
        let range = part_of(&content, range)?;
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let part = content.slice(index(range.start)..index(range.end));
        let payload = GetResultPayload::Stream(stream::once(async move { Ok(part) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix).map(|meta| meta.map(shown)).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset).map(|meta| meta.map(shown)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.inner.list_with_delimiter(prefix).await?;
        listed.objects = listed.objects.into_iter().map(shown).collect();
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn what_was_sealed_reads_back_and_any_change_is_told() {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = SealStore::over(Arc::clone(&inner));
        let at = Path::from("tables/manifest/1.manifest");
        store.put(&at, Bytes::from_static(b"content").into()).await.expect("puts");
        let got = store.get(&at).await.expect("gets");
        assert_eq!((got.meta.size, got.range.clone()), (7, 0..7));
        assert_eq!(got.bytes().await.expect("reads"), "content");
        assert_eq!(store.get_range(&at, 3..5).await.expect("reads"), "te");
        assert_eq!(store.head(&at).await.expect("is there").size, 7);
        let whole = inner.get(&at).await.expect("gets").bytes().await.expect("reads");
        assert_eq!(whole.len(), 47);
        for byte in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[byte] ^= 4;
            inner.put(&at, bytes.into()).await.expect("puts");
            let error = store.get(&at).await.expect_err("is damaged");
            assert_eq!(yadokari_store::kind(&error), yadokari_store::Kind::Corrupt, "{error}");
            inner.put(&at, whole.slice(..byte).into()).await.expect("puts");
            store.get(&at).await.expect_err("is cut short");
        }
    }

    #[tokio::test]
    async fn a_table_that_is_cut_short_is_damage_and_not_tried_again() {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = SealStore::over(inner);
        let at = Path::from("tables/compacted/1.sst");
        store.put(&at, Bytes::from_static(b"content").into()).await.expect("puts");
        let error = store.get_range(&at, 100..200).await.expect_err("ends before");
        assert_eq!(yadokari_store::kind(&error), yadokari_store::Kind::Corrupt, "{error}");
        assert!(!slatedb_common::retry::should_retry(&error));
        assert_eq!(store.get_range(&at, 3..5).await.expect("reads"), "te");
    }
}
