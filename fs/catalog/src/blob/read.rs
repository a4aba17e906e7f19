//! Reading a blob: ranges over its parts, a bounded number ahead.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::record::{Blobs, Record};
use crate::cell::Cell;
use crate::digest::Digest;
use crate::error::{CatalogError, Result};
use crate::hash::Hasher;
use crate::log::Writer;
use crate::types::ReadOptions;

/// A piece of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    path: Path,
    range: Range<u64>,
}

/// The pieces that make a range of a blob, each within one part. The range lies within the blob.
fn pieces(
    parts: impl Iterator<Item = (Path, u64)> + Send + 'static,
    range: Range<u64>,
    piece_bytes: u64,
) -> impl Iterator<Item = Piece> + Send + 'static {
    let starts = parts.scan(0, |at, (path, bytes)| {
        let start = *at;
        *at += bytes;
        Some((path, start, *at))
    });
    let wanted = range.clone();
    let hit = starts
        .skip_while(move |(_, _, end)| *end <= wanted.start)
        .take_while(move |(_, start, _)| *start < range.end)
        .map(move |(path, start, end)| {
            let from = range.start.max(start) - start;
            (path, from..range.end.min(end) - start)
        });
    hit.flat_map(move |(path, range)| {
        let end = range.end;
        let step = usize::try_from(piece_bytes).unwrap_or(usize::MAX);
        range.step_by(step).map(move |at| {
            let range = at..end.min(at + piece_bytes);
            Piece { path: path.clone(), range }
        })
    })
}

impl Blobs {
    /// The bytes of a range of a blob: exactly as many, or an error.
    pub(crate) fn stream(
        &self,
        cell: &Cell<Record>,
        range: Range<u64>,
        options: ReadOptions,
    ) -> BoxStream<'static, Result<Bytes>> {
        let piece_bytes = options.piece_bytes.max(1);
        let Some(parts) = &cell.value.parts else {
            let (start, end) = (range.start as usize, range.end as usize);
            if cell.bytes.len() < end {
                let why = Err(CatalogError::corrupt("a blob's record", "it lacks bytes"));
                return stream::once(async { why }).boxed();
            }
            let bytes = cell.bytes.slice(start..end);
            let cuts = (0..bytes.len()).step_by(piece_bytes);
            let cuts: Vec<_> =
                cuts.map(|at| Ok(bytes.slice(at..bytes.len().min(at + piece_bytes)))).collect();
            return stream::iter(cuts).boxed();
        };
        let paths: Vec<_> = parts.paths().zip(parts.list.iter().map(|part| part.2)).collect();
        let pieces = pieces(paths.into_iter(), range, piece_bytes as u64);
        let (data, writer) = (Arc::clone(&self.data), self.writer.clone());
        let read = move |piece: Piece| {
            let (data, writer) = (Arc::clone(&data), writer.clone());
            async move { read_piece(&*data, &writer, &piece).await }
        };
        stream::iter(pieces).map(read).buffered(options.ahead.max(1)).boxed()
    }

    /// All bytes of a blob that is no longer than `bytes_max`, verified by its digest.
    pub(crate) async fn whole(
        &self,
        digest: &Digest,
        cell: &Cell<Record>,
        bytes_max: usize,
    ) -> Result<Bytes> {
        if cell.value.size > bytes_max as u64 {
            return Err(CatalogError::corrupt(digest, "longer than it can be"));
        }
        let options = ReadOptions { piece_bytes: bytes_max, ahead: 4 };
        let mut stream = self.stream(cell, 0..cell.value.size, options);
        let mut pieces = Vec::new();
        while let Some(piece) = stream.next().await {
            pieces.push(piece?);
        }
        let bytes = match pieces.len() {
            1 => pieces.swap_remove(0),
            _ => Bytes::from(pieces.concat()),
        };
        if Hasher::digest(digest.algorithm(), &bytes) != *digest {
            return Err(CatalogError::corrupt(digest, "its bytes have another digest"));
        }
        Ok(bytes)
    }
}

async fn read_piece(data: &dyn ObjectStore, writer: &Writer, piece: &Piece) -> Result<Bytes> {
    let Piece { path, range } = piece;
    let read = || async {
        match tokio::time::timeout(writer.request_time, data.get_range(path, range.clone())).await {
            Ok(Ok(bytes)) if bytes.len() as u64 == range.end - range.start => Ok(bytes),
            Ok(Ok(_short)) => Err(CatalogError::corrupt(path, "shorter than its record says")),
            Ok(Err(object_store::Error::NotFound { .. })) => {
                Err(CatalogError::corrupt(path, "a record names it, and it does not exist"))
            }
            Ok(Err(error)) => Err(CatalogError::store("reading", path, error)),
            Err(_elapsed) => Err(CatalogError::busy("reading", path)),
        }
    };
    writer.again(read).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(lengths: &[u64], range: Range<u64>, piece: u64) -> Vec<(String, Range<u64>)> {
        let parts: Vec<_> =
            lengths.iter().enumerate().map(|(n, l)| (Path::from(n.to_string()), *l)).collect();
        let all = pieces(parts.into_iter(), range, piece);
        all.map(|piece| (piece.path.to_string(), piece.range)).collect()
    }

    #[test]
    fn a_range_is_cut_along_parts_and_pieces() {
        let named = |name: &str, range| (name.to_owned(), range);
        assert_eq!(
            cut(&[10, 5, 10], 0..25, 8),
            [
                named("0", 0..8),
                named("0", 8..10),
                named("1", 0..5),
                named("2", 0..8),
                named("2", 8..10)
            ]
        );
        assert_eq!(
            cut(&[10, 5, 10], 9..16, 100),
            [named("0", 9..10), named("1", 0..5), named("2", 0..1)]
        );
        assert_eq!(cut(&[10, 5, 10], 10..15, 100), [named("1", 0..5)]);
        assert_eq!(cut(&[10, 5, 10], 24..25, 100), [named("2", 9..10)]);
        assert_eq!(cut(&[10, 5, 10], 5..5, 100), []);
        assert_eq!(cut(&[], 0..0, 100), []);
    }

    #[test]
    fn every_range_has_exactly_its_bytes() {
        let lengths = [3, 1, 4, 1, 5];
        for start in 0..14u64 {
            for end in start..=14 {
                for piece in 1..6 {
                    let all = cut(&lengths, start..end, piece);
                    let sum: u64 = all.iter().map(|(_, r)| r.end - r.start).sum();
                    assert_eq!(sum, end - start);
                    assert!(all.iter().all(|(_, r)| r.start < r.end));
                }
            }
        }
    }
}
