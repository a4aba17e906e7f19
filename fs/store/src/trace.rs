//! Counts and traces what goes to a store: requests, bytes, errors and time, by kind.
//!
//! The counters are plain atomics that an exporter reads under the names below; each request is a
//! `tracing` event at level TRACE with its path, so that a slow or chatty caller can be found.

use crate::error::{Kind, kind};
use crate::fault::OpKind;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Requests by `kind`.
pub const METRIC_REQUESTS: &str = "yadokari_store_requests_total";
/// Requests that failed by the medium's fault (not: not found, exists, conflict), by `kind`.
pub const METRIC_ERRORS: &str = "yadokari_store_errors_total";
/// Microseconds until the answer, summed, by `kind`.
pub const METRIC_MICROSECONDS: &str = "yadokari_store_request_microseconds_total";
pub const METRIC_BYTES_READ: &str = "yadokari_store_read_bytes_total";
pub const METRIC_BYTES_WRITTEN: &str = "yadokari_store_written_bytes_total";

/// The running counters of one or more [`TraceStore`]s.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    kinds: [KindCounters; OpKind::ALL.len()],
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

#[derive(Debug, Default)]
struct KindCounters {
    requests: AtomicU64,
    errors: AtomicU64,
    microseconds: AtomicU64,
}

impl StoreMetrics {
    pub fn requests(&self, kind: OpKind) -> u64 {
        self.kinds[kind.index()].requests.load(Ordering::Relaxed)
    }

    pub fn errors(&self, kind: OpKind) -> u64 {
        self.kinds[kind.index()].errors.load(Ordering::Relaxed)
    }

    pub fn requests_total(&self) -> u64 {
        OpKind::ALL.iter().map(|kind| self.requests(*kind)).sum()
    }

    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    pub fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Relaxed)
    }

    /// Every counter under its metric name, with the kind where it has one.
    pub fn snapshot(&self) -> Vec<(&'static str, Option<&'static str>, u64)> {
        let mut all = vec![
            (METRIC_BYTES_READ, None, self.bytes_read()),
            (METRIC_BYTES_WRITTEN, None, self.bytes_written()),
        ];
        for kind in OpKind::ALL {
            let counters = &self.kinds[kind.index()];
            let micros = counters.microseconds.load(Ordering::Relaxed);
            all.push((METRIC_REQUESTS, Some(kind.name()), self.requests(kind)));
            all.push((METRIC_ERRORS, Some(kind.name()), self.errors(kind)));
            all.push((METRIC_MICROSECONDS, Some(kind.name()), micros));
        }
        all
    }

    fn done<T>(&self, op: OpKind, path: &Path, start: Instant, result: &Result<T>) {
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let counters = &self.kinds[op.index()];
        counters.requests.fetch_add(1, Ordering::Relaxed);
        counters.microseconds.fetch_add(micros, Ordering::Relaxed);
        let error = result.as_ref().err();
        let medium = |error: &object_store::Error| {
            let kind = kind(error);
            !matches!(kind, Kind::NotFound | Kind::Exists | Kind::Conflict | Kind::NotModified)
        };
        if error.is_some_and(medium) {
            counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        tracing::trace!(op = op.name(), %path, micros, error = error.map(|e| e.to_string()));
    }
}

/// An object store whose requests are counted.
#[derive(Debug, Clone)]
pub struct TraceStore {
    inner: Arc<dyn ObjectStore>,
    metrics: Arc<StoreMetrics>,
}

impl TraceStore {
    pub fn new(inner: Arc<dyn ObjectStore>, metrics: Arc<StoreMetrics>) -> Self {
        TraceStore { inner, metrics }
    }

    async fn count<T>(
        &self,
        op: OpKind,
        path: &Path,
        run: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let start = Instant::now();
        let result = run.await;
        self.metrics.done(op, path, start, &result);
        result
    }

    fn wrote(&self, bytes: u64) {
        self.metrics.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    fn count_list(
        &self,
        prefix: Option<&Path>,
        list: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let path = prefix.cloned().unwrap_or_default();
        self.metrics.done(OpKind::List, &path, Instant::now(), &Ok(()));
        list
    }
}

#[async_trait]
impl ObjectStore for TraceStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let op = match opts.mode {
            PutMode::Overwrite => OpKind::Put,
            PutMode::Create => OpKind::Create,
            PutMode::Update(_) => OpKind::Update,
        };
        let length = payload.content_length() as u64;
        let put = self.inner.put_opts(location, payload, opts);
        let result = self.count(op, location, put).await?;
        self.wrote(length);
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let begin = self.inner.put_multipart_opts(location, opts);
        let inner = self.count(OpKind::Multipart, location, begin).await?;
        Ok(Box::new(TraceUpload { inner, store: self.clone(), location: location.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let op = if options.head { OpKind::Head } else { OpKind::Get };
        let mut result = self.count(op, location, self.inner.get_opts(location, options)).await?;
        if let GetResultPayload::Stream(stream) = result.payload {
            let metrics = Arc::clone(&self.metrics);
            let counted = stream.inspect(move |piece| {
                if let Ok(bytes) = piece {
                    metrics.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
            });
            result.payload = GetResultPayload::Stream(counted.boxed());
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let get = self.inner.get_ranges(location, ranges);
        let found = self.count(OpKind::Get, location, get).await?;
        let bytes: usize = found.iter().map(Bytes::len).sum();
        self.metrics.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let metrics = Arc::clone(&self.metrics);
        self.inner
            .delete_stream(locations)
            .inspect(move |result| {
                let path = result.as_ref().ok().cloned().unwrap_or_default();
                metrics.done(OpKind::Delete, &path, Instant::now(), result);
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count_list(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count_list(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.cloned().unwrap_or_default();
        self.count(OpKind::List, &path, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.count(OpKind::Copy, to, self.inner.copy_opts(from, to, options)).await
    }
}

impl fmt::Display for TraceStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceStore({})", self.inner)
    }
}

#[derive(Debug)]
struct TraceUpload {
    inner: Box<dyn MultipartUpload>,
    store: TraceStore,
    location: Path,
}

#[async_trait]
impl MultipartUpload for TraceUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, location) = (self.store.clone(), self.location.clone());
        let length = data.content_length() as u64;
        let part = self.inner.put_part(data);
        Box::pin(async move {
            store.count(OpKind::Part, &location, part).await?;
            store.wrote(length);
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let run = self.inner.complete();
        self.store.count(OpKind::Complete, &self.location, run).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
