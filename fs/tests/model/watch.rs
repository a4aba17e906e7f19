//! The store under a simulated home: in memory, and it keeps what a machine would find that died
//! right after a commit, to be checked. It also sums up all that it is asked, so that two runs
//! can be told to be the same.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use yadokari_fs::home::fsck::{Options, Report, check_closed};

use super::invariants::{self, Invariant, broken};
use super::life::{PREFIX, quiet_runtime};

/// A store in memory.
#[derive(Clone, Debug)]
pub struct Watch {
    inner: Arc<InMemory>,
    noted: Arc<Mutex<Noted>>,
}

#[derive(Debug, Default)]
struct Noted {
    moments: Vec<(String, InMemory)>,
    digest: blake3::Hasher,
    operations: u64,
}

impl Watch {
    pub fn new() -> Self {
        Self { inner: Arc::new(InMemory::new()), noted: Arc::default() }
    }

    /// The objects as they are now, apart from this store.
    pub fn fork(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.inner.fork())
    }

    /// A number for all that was asked so far, and how much that was.
    pub fn digest(&self) -> (u64, blake3::Hash) {
        let noted = self.noted.lock();
        (noted.operations, noted.digest.finalize())
    }

    fn note(&self, what: &str, path: &Path, bytes: usize) {
        let mut noted = self.noted.lock();
        noted.operations += 1;
        noted.digest.update(format!("{what} {path} {bytes}\n").as_bytes());
        if std::env::var_os("YADOKARI_SIM_TRACE").is_some() {
            eprintln!("      {what} {path} {bytes}");
        }
    }

    /// After this a crash would leave something new to look at.
    fn moment(&self, what: &str, path: &Path) {
        let fork = self.inner.fork();
        self.noted.lock().moments.push((format!("after the {what} of {path}"), fork));
    }

    fn moments(&self) -> Vec<(String, InMemory)> {
        std::mem::take(&mut self.noted.lock().moments)
    }
}

impl std::fmt::Display for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watch({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Watch {
    async fn put_opts(&self, at: &Path, data: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.note("put", at, data.content_length());
        let result = self.inner.put_opts(at, data, opts).await;
        if result.is_ok() && at.as_ref().contains("/tables/wal/") {
            self.moment("put", at);
        }
        result
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.note("multipart", at, 0);
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.note("get", at, 0);
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = this.inner.delete_stream(paths);
        deleted
            .inspect(move |path| {
                if let Ok(path) = path {
                    this.note("delete", path, 0);
                    if path.as_ref().contains("/segments/") {
                        this.moment("delete", path);
                    }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.note("list", prefix.unwrap_or(&Path::default()), 0);
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.note("list", prefix.unwrap_or(&Path::default()), 0);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.note("copy", to, 0);
        self.inner.copy_opts(from, to, options).await
    }
}

/// Checks what a store holds, on a runtime of its own.
pub struct Checker {
    runtime: Runtime,
}

impl Checker {
    pub fn new() -> Self {
        Self { runtime: quiet_runtime() }
    }

    /// Checks everything, contents too.
    pub fn report(&self, store: &Arc<dyn ObjectStore>, in_use: bool) -> Result<Report, String> {
        let options = Options { verify_data: true, in_use };
        let prefix = Path::from(PREFIX);
        let mut quiet = |_| {};
        let check = check_closed(store, store, &prefix, options, &mut quiet);
        self.runtime.block_on(async {
            let limited = tokio::time::timeout(Duration::from_secs(3600), check).await;
            let checked = limited.map_err(|_| "a check that takes for ever".to_owned())?;
            checked.map_err(|error| error.to_string())
        })
    }

    fn hold(&self, when: &str, store: &Arc<dyn ObjectStore>, in_use: bool) {
        match self.report(store, in_use) {
            Ok(report) => invariants::hold(when, &report, !in_use),
            Err(error) => broken(Invariant::StoreIsReadable, format_args!("{when}: {error}")),
        }
    }

    /// Checks what was committed since the last look; gives how many commits that were.
    pub fn hold_moments(&self, watch: &Watch) -> u64 {
        let moments = watch.moments();
        let count = moments.len() as u64;
        for (when, fork) in moments {
            let store: Arc<dyn ObjectStore> = Arc::new(fork);
            self.hold(&when, &store, true);
        }
        count
    }

    /// Checks a home that nobody has open: nothing may leak then.
    pub fn hold_closed(&self, when: &str, watch: &Watch) {
        self.hold(when, &watch.fork(), false);
    }
}
