//! `file://`: a directory as a durable object store.
//!
//! A put is acknowledged when data and name are on the disk, as a file or in the store's own
//! journal, which the next opening makes good; so a crash leaves whole objects only;
//! `Create` and `Update` hold against other threads and other processes on the same directory.
//! Nothing is cached: what one process acknowledged, the next read of any process sees.
//!
//! Every operation is one hop to a blocking thread, which does all its system calls there. How
//! many run at once is bounded. Form of the files: `footer`; the directory: `root`; names:
//! `names`; small new objects: `journal`; large ones that nobody reads soon: `direct`; why it is
//! so: `decisions/file-format.md`.

mod direct;
mod footer;
mod journal;
mod names;
mod read;
mod reserve;
mod root;
mod spares;
mod upload;
mod write;

use crate::error::{Detail, StoreError};
use crate::store::Usage;
use crate::{BlockingPool, NameLater, NotReadSoon, UseReserve};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use read::{Got, Walk};
use root::Root;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use write::Writer;

pub(crate) const STORE: &str = "file";
/// Threads that read and write for the store; a disk has no use for more.
const THREADS_MAX: usize = 32;
/// A get up to this length is read in the hop that opens the file; a longer one in such pieces.
const READ_BYTES_MAX: u64 = 8 << 20;
/// Objects per hop of a listing.
const LIST_BATCH: usize = 1000;
/// Deletes per hop; they share the syncs of their directories.
const DELETE_BATCH: usize = 64;

/// What a handle writes, which decides what happens when the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Fails with ENOSPC while the reserve is still there.
    Data,
    /// May use the reserve.
    Meta,
}

/// A handle on a directory; clones share it.
#[derive(Debug, Clone)]
pub struct FileStore {
    root: Arc<Root>,
    class: Class,
    threads: Arc<BlockingPool>,
}

impl FileStore {
    /// Opens or makes the store in a directory. Blocks. `reserve_bytes` None is the default.
    pub(crate) fn open(
        path: &std::path::Path,
        reserve_bytes: Option<u64>,
    ) -> Result<FileStore, StoreError> {
        let root = Arc::new(Root::open(path, reserve_bytes)?);
        let threads = Arc::new(BlockingPool::new("store", THREADS_MAX));
        Ok(FileStore { root, class: Class::Data, threads })
    }

    /// The same store for metadata.
    pub(crate) fn for_meta(&self) -> FileStore {
        FileStore { class: Class::Meta, ..self.clone() }
    }

    /// Empties the journal, so that the next opening has nothing to make good.
    pub(crate) async fn settle(&self) -> Result<()> {
        self.hop(|this| {
            this.root.journal.close().map_err(|error| {
                let object = this.root.path().display().to_string();
                let why = error.to_string();
                Detail::Unavailable { operation: "settle", object, why }.at(STORE)
            })
        })
        .await
    }

    pub(crate) async fn usage(&self) -> Result<Usage> {
        self.hop(|this| {
            let space = rustix::fs::statvfs(this.root.path()).map_err(|error| {
                let object = this.root.path().display().to_string();
                let why = error.to_string();
                Detail::Unavailable { operation: "statvfs", object, why }.at(STORE)
            })?;
            let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
            Ok(Usage {
                capacity_bytes: bytes(space.f_blocks),
                used_bytes: bytes(space.f_blocks - space.f_bfree),
                free_bytes: bytes(space.f_bavail),
            })
        })
        .await
    }

    /// Runs one operation on a blocking thread, or right here when there is no runtime.
    async fn hop<T: Send + 'static>(
        &self,
        run: impl FnOnce(&FileStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if tokio::runtime::Handle::try_current().is_err() {
            return run(self);
        }
        let this = self.clone();
        let hop = self.threads.run(move || run(&this));
        hop.await.map_err(|source| Error::JoinError { source })?
    }

    fn writer<'a>(&'a self, location: &'a Path) -> Writer<'a> {
        Writer { root: &self.root, class: self.class, location, name_later: false, direct: false }
    }
}

#[async_trait]
impl ObjectStore for FileStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let location = location.clone();
        let class = if UseReserve::is_in(&opts) { Class::Meta } else { self.class };
        let (name_later, direct) = (NameLater::is_in(&opts), NotReadSoon::is_in(&opts));
        let put = move |this: &FileStore| {
            let writer = Writer { class, name_later, direct, ..this.writer(&location) };
            writer.put(&payload, &opts.mode, &opts.attributes)
        };
        self.hop(put).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let location = location.clone();
        let begin = move |this: &FileStore| {
            upload::FileUpload::begin(this.clone(), location, opts.attributes)
        };
        Ok(Box::new(self.hop(begin).await?))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let path = location.clone();
        let (got, first) = self
            .hop(move |this| {
                let got = read::get(&this.root, &path, &options)?;
                let first = match options.head {
                    true => None,
                    false => Some(got.opened.read(&path, piece(&got.range, got.range.start))?),
                };
                Ok((got, first))
            })
            .await?;
        let (meta, range, attributes) =
            (got.meta.clone(), got.range.clone(), got.attributes.clone());
        let payload = GetResultPayload::Stream(match first {
            None => stream::empty().boxed(),
            Some(first) if first.len() as u64 == range.end - range.start => {
                stream::once(async move { Ok(first) }).boxed()
            }
            Some(first) => self.clone().pieces(got, first),
        });
        Ok(GetResult { payload, meta, range, attributes, extensions: Default::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (location, ranges) = (location.clone(), ranges.to_vec());
        self.hop(move |this| read::get_ranges(&this.root, &location, &ranges)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .ready_chunks(DELETE_BATCH)
            .then(move |batch| {
                let this = this.clone();
                async move {
                    let deleted = this.hop(|this| Ok(delete_batch(this, batch))).await;
                    deleted.unwrap_or_else(|error| vec![Err(error)])
                }
            })
            .flat_map(stream::iter)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned().unwrap_or_default();
        let begin = (self.clone(), prefix, None::<Walk>);
        stream::try_unfold(begin, |(this, prefix, walk)| async move {
            let (found, prefix, walk) = this
                .hop(move |this| {
                    let mut walk = match walk {
                        Some(walk) => walk,
                        None => Walk::below(&this.root, &prefix)?,
                    };
                    let found = walk.next(&this.root, LIST_BATCH)?;
                    Ok((found, prefix, walk))
                })
                .await?;
            let more = !found.is_empty();
            Ok::<_, Error>(more.then(|| (found, (this, prefix, Some(walk)))))
        })
        .map_ok(|found| stream::iter(found.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        self.hop(move |this| read::list_with_delimiter(&this.root, &prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.hop(move |this| this.writer(&to).copy(&from, options.mode).map(drop)).await
    }
}

impl FileStore {
    /// The data of a long get: what was read already, then the rest piece by piece.
    fn pieces(self, got: Got, first: Bytes) -> BoxStream<'static, Result<Bytes>> {
        let (got, next) = (Arc::new(got), first.len() as u64);
        let rest = stream::try_unfold(got.range.start + next, move |at| {
            let (this, got) = (self.clone(), Arc::clone(&got));
            async move {
                if at >= got.range.end {
                    return Ok(None);
                }
                let piece = piece(&got.range, at);
                let end = piece.end;
                let read = move |_: &FileStore| got.opened.read(&got.meta.location, piece);
                Ok(Some((this.hop(read).await?, end)))
            }
        });
        stream::once(async move { Ok(first) }).chain(rest).boxed()
    }
}

impl fmt::Display for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileStore({})", self.root.path().display())
    }
}

fn piece(range: &Range<u64>, at: u64) -> Range<u64> {
    at..range.end.min(at + READ_BYTES_MAX)
}

fn delete_batch(this: &FileStore, batch: Vec<Result<Path>>) -> Vec<Result<Path>> {
    let mut answers = Vec::with_capacity(batch.len());
    let mut run = Vec::new();
    for location in batch {
        match location {
            Ok(location) => run.push(location),
            Err(error) => {
                answers.append(&mut write::delete(&this.root, std::mem::take(&mut run)));
                answers.push(Err(error));
            }
        }
    }
    answers.append(&mut write::delete(&this.root, run));
    answers
}
