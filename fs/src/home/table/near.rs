//! Reads of tables that lie near each other become one: a walk reads block after block, each a
//! request to the store, where one request could bring sixty of them.
//!
//! What always holds: the first look somewhere costs what it asks for; only where another look
//! was near it lately is a whole piece read. Pieces are bounded over all tables of a process.
//! Compacted tables are written once under names that never come again, so a piece is never
//! outdated; those of the log are numbered, and come again where a home is made anew, so they
//! pass. Blocks are verified by who asks, and all pieces are dropped where one was damaged
//! ([`Pieces::clear`]).

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use crate::home::maps::SameHash;

/// What is read at once.
const PIECE_BYTES: u64 = 256 << 10;
/// Longer reads pass.
const SHORT_BYTES_MAX: u64 = PIECE_BYTES / 2;
/// Looks that are remembered.
const LOOKS_MAX: usize = 32;

/// A piece of a table, and what the store says of that.
#[derive(Clone, Debug)]
struct Piece {
    bytes: Bytes,
    table: Arc<(ObjectMeta, Attributes)>,
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<(Path, u64), Piece> for ByBytes {
    fn weight(&self, _: &(Path, u64), piece: &Piece) -> u64 {
        piece.bytes.len() as u64 + 256
    }
}

/// Where tables lie whose names are used once.
const COMPACTED: &str = "/compacted/";

/// Pieces of all tables of a process.
#[derive(Debug)]
pub struct Pieces(Cache<(Path, u64), Piece, ByBytes, SameHash>);

impl Pieces {
    /// Room for `bytes`.
    #[must_use]
    pub fn new(bytes: u64) -> Arc<Self> {
        let items = usize::try_from(bytes / PIECE_BYTES).unwrap_or(usize::MAX).max(4);
        let life = DefaultLifecycle::default();
        Arc::new(Self(Cache::with(items, bytes, ByBytes, SameHash::default(), life)))
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        self.0.clear();
    }
}

/// A store of tables that reads pieces.
#[derive(Debug)]
pub struct NearStore {
    inner: Arc<dyn ObjectStore>,
    pieces: Arc<Pieces>,
    looks: Mutex<VecDeque<(Path, u64)>>,
}

impl NearStore {
    /// `inner`, with pieces that it shares with others.
    pub fn over(inner: Arc<dyn ObjectStore>, pieces: Arc<Pieces>) -> Arc<dyn ObjectStore> {
        Arc::new(Self { inner, pieces, looks: Mutex::default() })
    }

    fn kept(&self, at: &Path, range: &Range<u64>) -> Option<GetResult> {
        let pieces: Option<Vec<Piece>> =
            pieces_of(range).map(|number| self.pieces.0.get(&(at.clone(), number))).collect();
        answer(&pieces?, range)
    }

    /// Notes a look that found nothing here; true where another one was near it.
    fn is_near(&self, at: &Path, pieces: &Range<u64>) -> bool {
        let mut looks = self.looks.lock();
        let near = |(table, piece): &(Path, u64)| {
            table == at && *piece + 1 >= pieces.start && *piece <= pieces.end
        };
        let found = looks.iter().any(near);
        if looks.len() >= LOOKS_MAX {
            looks.pop_front();
        }
        looks.push_back((at.clone(), pieces.start));
        found
    }

    async fn fetch(&self, at: &Path, numbers: &Range<u64>) -> Result<Vec<Piece>> {
        let whole = numbers.start * PIECE_BYTES..numbers.end * PIECE_BYTES;
        let options = GetOptions { range: Some(GetRange::Bounded(whole)), ..GetOptions::default() };
        let got = self.inner.get_opts(at, options).await?;
        let table = Arc::new((got.meta.clone(), got.attributes.clone()));
        let bytes = got.bytes().await?;
        let mut pieces = Vec::new();
        let starts = (0..bytes.len()).step_by(PIECE_BYTES as usize);
        for (number, from) in numbers.clone().zip(starts) {
            let to = bytes.len().min(from + PIECE_BYTES as usize);
            // A copy of its own where there are several: a slice would keep all of them alive.
            let own = match to - from == bytes.len() {
                true => bytes.clone(),
                false => Bytes::copy_from_slice(&bytes[from..to]),
            };
            let piece = Piece { bytes: own, table: Arc::clone(&table) };
            self.pieces.0.insert((at.clone(), number), piece.clone());
            pieces.push(piece);
        }
        Ok(pieces)
    }
}

/// The range of a get that asks for a short part of a table and nothing else.
fn short_range(at: &Path, options: &GetOptions) -> Option<Range<u64>> {
    let Some(GetRange::Bounded(range)) = &options.range else { return None };
    let conditions = options.if_match.is_some()
        || options.if_none_match.is_some()
        || options.if_modified_since.is_some()
        || options.if_unmodified_since.is_some()
        || options.version.is_some();
    let short = range.start < range.end && range.end - range.start <= SHORT_BYTES_MAX;
    let table = at.as_ref().ends_with(".sst") && at.as_ref().contains(COMPACTED);
    (short && table && !conditions && !options.head).then(|| range.clone())
}

fn pieces_of(range: &Range<u64>) -> Range<u64> {
    range.start / PIECE_BYTES..(range.end - 1) / PIECE_BYTES + 1
}

/// `range` out of the pieces that cover it; `None` where the table ends before it begins.
fn answer(pieces: &[Piece], range: &Range<u64>) -> Option<GetResult> {
    let (meta, attributes) = &*pieces.first()?.table;
    let base = pieces_of(range).start * PIECE_BYTES;
    let range = range.start..range.end.min(meta.size);
    let mut part =
        BytesMut::with_capacity(usize::try_from(range.end.checked_sub(range.start)?).ok()?);
    for (piece, from) in pieces.iter().zip((base..).step_by(PIECE_BYTES as usize)) {
        let clip = |at: u64| {
            usize::try_from(at.saturating_sub(from)).map_or(0, |at| at.min(piece.bytes.len()))
        };
        part.extend_from_slice(&piece.bytes[clip(range.start)..clip(range.end)]);
    }
    if part.is_empty() || part.len() as u64 != range.end - range.start {
        return None;
    }
    let part = part.freeze();
    Some(GetResult {
        payload: GetResultPayload::Stream(stream::once(async move { Ok(part) }).boxed()),
        meta: meta.clone(),
        range,
        attributes: attributes.clone(),
        extensions: Default::default(),
    })
}

impl fmt::Display for NearStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl ObjectStore for NearStore {
    async fn put_opts(
        &self,
        at: &Path,
        data: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(at, data, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let Some(range) = short_range(at, &options) else {
            return self.inner.get_opts(at, options).await;
        };
        if let Some(kept) = self.kept(at, &range) {
            return Ok(kept);
        }
        // Where the piece cannot be read, what was asked for may be read all the same.
        if self.is_near(at, &pieces_of(&range))
            && let Ok(pieces) = self.fetch(at, &pieces_of(&range)).await
            && let Some(found) = answer(&pieces, &range)
        {
            return Ok(found);
        }
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

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn what_is_read_is_the_table_wherever_it_is_read() {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let pieces = Pieces::new(1 << 20);
        let store = NearStore::over(Arc::clone(&inner), Arc::clone(&pieces));
        let at = Path::from("tables/compacted/1.sst");
        let table: Vec<u8> = (0..700_000_u32).map(|n| (n / 251 + n % 251) as u8).collect();
        inner.put(&at, table.clone().into()).await.expect("puts");
        let mut range = 0..0;
        for turn in 0..300_u64 {
            let start = turn * 9973 % 699_990;
            range = start..start + 1 + turn * 431 % 100_000;
            let got = store.get_range(&at, range.clone()).await.expect("reads");
            let end = 700_000.min(range.end as usize);
            assert_eq!(&got[..], &table[start as usize..end], "{range:?}");
        }
        // What is kept needs no store, until all of it is forgotten.
        inner.delete(&at).await.expect("deletes");
        store.get_range(&at, range.clone()).await.expect("is kept");
        pieces.clear();
        store.get_range(&at, range).await.expect_err("is gone");
    }

    #[tokio::test]
    async fn a_log_whose_number_comes_again_is_read_from_the_store() {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = NearStore::over(Arc::clone(&inner), Pieces::new(1 << 20));
        let at = Path::from("homes/ada/tables/wal/00000000000000000001.sst");
        for content in [7, 8] {
            inner.put(&at, vec![content; 1000].into()).await.expect("puts");
            for start in [0, 10, 20] {
                let got = store.get_range(&at, start..start + 5).await.expect("reads");
                assert_eq!(&got[..], [content; 5]);
            }
        }
    }

    #[tokio::test]
    async fn behind_the_end_of_a_table_is_an_error_also_where_a_piece_is_kept() {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = NearStore::over(Arc::clone(&inner), Pieces::new(1 << 20));
        let at = Path::from("tables/compacted/1.sst");
        inner.put(&at, vec![7; 1000].into()).await.expect("puts");
        for start in [0, 10, 20] {
            assert_eq!(store.get_range(&at, start..start + 5).await.expect("reads").len(), 5);
        }
        assert_eq!(store.get_range(&at, 990..1010).await.expect("reads").len(), 10);
        store.get_range(&at, 1000..1010).await.expect_err("is not there");
    }
}
