//! Bounded retries of transient failures, with lost answers told apart.
//!
//! Only what [`crate::error::is_transient`] names is tried again, with growing pauses, until the
//! policy's time is over; then the last error goes to the caller. A conditional put carries a
//! nonce of its own as an attribute: when a repetition finds the object there (`Create`) or
//! changed (`Update`), the nonce tells whether that was its own first try whose answer was lost.
//! When somebody has replaced the object since, that can no longer be told, and the conflict is
//! reported: the put may then have happened and been overwritten.

use crate::error::{is_transient, kind};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attribute, CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The attribute that carries a conditional put's nonce. No separators: some media allow none.
pub const NONCE_ATTRIBUTE: &str = "yadokarinonce";
/// Deletes in flight of one stream.
const DELETES_MAX: usize = 32;

/// For how long and how often to try.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// From the first try to the last; 0 tries once.
    pub time: Duration,
    pub pause_first: Duration,
    pub pause_max: Duration,
    /// Seeds the nonces. None takes one at random; a simulation gives its own.
    pub seed: Option<u64>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            time: Duration::from_secs(60),
            pause_first: Duration::from_millis(50),
            pause_max: Duration::from_secs(2),
            seed: None,
        }
    }
}

/// An object store whose transient failures are retried.
#[derive(Debug, Clone)]
pub struct RetryStore {
    inner: Arc<dyn ObjectStore>,
    policy: Arc<RetryPolicy>,
    nonce: Arc<(u64, AtomicU64)>,
}

impl RetryStore {
    pub fn new(inner: Arc<dyn ObjectStore>, policy: RetryPolicy) -> Self {
        let seed = policy.seed.unwrap_or_else(rand::random);
        RetryStore { inner, policy: Arc::new(policy), nonce: Arc::new((seed, AtomicU64::new(0))) }
    }

    fn next_nonce(&self) -> String {
        let (seed, count) = &*self.nonce;
        format!("{seed:016x}-{:x}", count.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs an operation until it succeeds, fails for good, or the time is over. The operation
    /// is told how many tries went before.
    async fn run<T, F: Future<Output = Result<T>>>(
        &self,
        operation: &'static str,
        path: &Path,
        mut once: impl FnMut(u32) -> F,
    ) -> Result<T> {
        let start = tokio::time::Instant::now();
        let mut pause = self.policy.pause_first;
        for tries in 0.. {
            let error = match once(tries).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if !is_transient(&error) || start.elapsed() + pause >= self.policy.time {
                return Err(error);
            }
            tracing::debug!(operation, %path, %error, ?pause, "retrying a store operation");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.policy.pause_max);
        }
        unreachable!("the loop has no other end")
    }

    async fn put_conditional(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        let nonce = self.next_nonce();
        let key = Attribute::Metadata(NONCE_ATTRIBUTE.into());
        opts.attributes.insert(key.clone(), nonce.clone().into());
        let once = |tries: u32| {
            let (payload, opts, nonce, key) = (payload.clone(), opts.clone(), &nonce, &key);
            async move {
                let error = match self.inner.put_opts(location, payload, opts).await {
                    Err(e @ (Error::AlreadyExists { .. } | Error::Precondition { .. })) => e,
                    other => return other,
                };
                if tries == 0 {
                    return Err(error);
                }
                let head = GetOptions::new().with_head(true);
                match self.inner.get_opts(location, head).await {
                    Ok(now) if now.attributes.get(key).is_some_and(|v| v.as_ref() == nonce) => {
                        Ok(PutResult {
                            e_tag: now.meta.e_tag,
                            version: now.meta.version,
                            extensions: now.extensions,
                        })
                    }
                    // Whether it was ours is not known yet: the next try asks again.
                    Err(unknown) if is_transient(&unknown) => Err(unknown),
                    _ => Err(error),
                }
            }
        };
        self.run("put", location, once).await
    }
}

#[async_trait]
impl ObjectStore for RetryStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if opts.mode != PutMode::Overwrite {
            return self.put_conditional(location, payload, opts).await;
        }
        let once = |_| self.inner.put_opts(location, payload.clone(), opts.clone());
        self.run("put", location, once).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let once = |_| self.inner.put_multipart_opts(location, opts.clone());
        let inner = self.run("begin of an upload", location, once).await?;
        Ok(Box::new(RetryUpload { inner }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let once = |_| async {
            let result = self.inner.get_opts(location, options.clone()).await?;
            // The body of a ranged read is read within the try; a whole object may be too long
            // to hold, and its reader sees an error in the middle.
            if options.range.is_none() {
                return Ok(result);
            }
            let (meta, range) = (result.meta.clone(), result.range.clone());
            let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
            let bytes = result.bytes().await?;
            if bytes.len() as u64 != range.end - range.start {
                let why = format!("{} of {} bytes came", bytes.len(), range.end - range.start);
                return Err(Error::Generic { store: "retry", source: why.into() });
            }
            let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
            Ok(GetResult { payload, meta, range, attributes, extensions })
        };
        self.run("get", location, once).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<bytes::Bytes>> {
        self.run("get", location, |_| self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .map(move |location| {
                let this = this.clone();
                async move {
                    let location = location?;
                    let once = |tries: u32| {
                        let (this, location) = (&this, &location);
                        async move {
                            match this.inner.delete(location).await {
                                // The first try may have removed it without our hearing of it.
                                Err(Error::NotFound { .. }) if tries > 0 => Ok(()),
                                other => other,
                            }
                        }
                    };
                    this.run("delete", &location, once).await?;
                    Ok(location)
                }
            })
            .buffered(DELETES_MAX)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_again(prefix.cloned(), None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_again(prefix.cloned(), Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.cloned().unwrap_or_default();
        self.run("list", &path, |_| self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        // A copy carries no nonce: a repeated Create could not be told from a foreign one.
        if options.mode == CopyMode::Create {
            return self.inner.copy_opts(from, to, options).await;
        }
        self.run("copy", to, |_| self.inner.copy_opts(from, to, options.clone())).await
    }
}

impl RetryStore {
    /// A listing is collected within the try, since half of one cannot be taken back.
    fn list_again(
        &self,
        prefix: Option<Path>,
        offset: Option<Path>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let this = self.clone();
        stream::once(async move {
            let path = prefix.clone().unwrap_or_default();
            let once = |_| {
                let list = match &offset {
                    None => this.inner.list(prefix.as_ref()),
                    Some(offset) => this.inner.list_with_offset(prefix.as_ref(), offset),
                };
                list.try_collect::<Vec<ObjectMeta>>()
            };
            let found = this.run("list", &path, once).await?;
            Ok::<_, Error>(stream::iter(found.into_iter().map(Ok)))
        })
        .try_flatten()
        .boxed()
    }
}

impl fmt::Display for RetryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryStore({})", self.inner)
    }
}

/// Parts cannot be repeated through this trait (the future owns its data); the end can not be
/// either without knowing whether it happened. An upload that fails is begun anew by its caller.
#[derive(Debug)]
struct RetryUpload {
    inner: Box<dyn MultipartUpload>,
}

#[async_trait]
impl MultipartUpload for RetryUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let done = self.inner.complete().await;
        if let Err(error) = &done {
            tracing::debug!(kind = ?kind(error), "the end of an upload failed");
        }
        done
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
