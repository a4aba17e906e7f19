//! Gets: description and first data in one request, the rest in parallel pieces.

use super::STORE;
use super::core::Core;
use super::format::{self, Description, Layout, XATTR};
use super::object;
use super::op::{Errno, ReadOp};
use crate::error::Detail;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, GetResult, GetResultPayload, Result};
use std::ffi::CString;
use std::ops::Range;
use std::sync::Arc;

/// What the first request of an unbounded get asks for: heads and manifests come whole with it.
const FIRST_BYTES: usize = 64 << 10;
/// One request reads at most this much.
const PIECE_BYTES_MAX: u64 = 8 << 20;
/// Up to this length an answer is collected before it is given; beyond, it is a stream.
const COLLECT_BYTES_MAX: u64 = 32 << 20;
/// Pieces of one get that are read at once.
const PIECES_MAX: usize = 8;
/// How often an object may be replaced while it is being read.
const RACES_MAX: u32 = 10;

/// Where the data of a get is to be read from.
struct Source {
    name: CString,
    /// Within that RADOS object.
    offset: u64,
    length: u64,
    /// The version it must have; parts are never changed and have none.
    version: Option<u64>,
}

pub(super) async fn get(core: &Arc<Core>, path: &Path, options: &GetOptions) -> Result<GetResult> {
    for _ in 0..RACES_MAX {
        match get_once(core, path, options).await? {
            Some(result) => return Ok(result),
            None => tracing::trace!(%path, "replaced while it was read: reading it again"),
        }
    }
    let why = "it is replaced faster than it can be read".to_owned();
    Err(Detail::Unavailable { operation: "get", object: path.to_string(), why }.at(STORE))
}

/// None when the object was replaced between two requests.
async fn get_once(
    core: &Arc<Core>,
    path: &Path,
    options: &GetOptions,
) -> Result<Option<GetResult>> {
    let name = format::object_name(path);
    let (start, first) = first_request(options);
    let data = (first > 0).then_some((start, first));
    let ask = ReadOp { xattr: Some(XATTR), data, ..ReadOp::default() };
    let read = core.pool.read(&name, ask).await;
    let read = read.map_err(|errno| object::error(&core.pool, "get", path, errno))?;
    let description = object::decode(path, read.xattr.as_deref())?;
    let meta = description.meta(path, read.version);
    options.check_preconditions(&meta)?;
    let range = resolve(path, options, &description)?;
    let result = |payload| GetResult {
        payload: GetResultPayload::Stream(payload),
        meta: meta.clone(),
        range: range.clone(),
        attributes: description.attributes.clone(),
        extensions: Default::default(),
    };
    if options.head || range.is_empty() {
        return Ok(Some(result(stream::empty().boxed())));
    }
    let (mut have, mut at) = (Vec::new(), range.start);
    let sources = if description.in_parts {
        let layout = if start == 0 { format::decode_layout(&read.data) } else { None };
        let layout = match layout {
            Some(layout) => layout,
            None => match read_layout(core, path, &name, read.version).await? {
                Some(layout) => layout,
                None => return Ok(None),
            },
        };
        if layout.size() != description.size {
            return Err(object::corrupt(path, "its parts do not make up its size"));
        }
        part_sources(&description, &layout, range.clone())
    } else {
        if start <= at && !read.data.is_empty() && first > 0 {
            let skip = (at - start) as usize;
            let end = read.data.len().min((range.end - start) as usize);
            if skip < end {
                have.push(read.data.slice(skip..end));
                at += (end - skip) as u64;
            }
        }
        whole_sources(&name, read.version, at..range.end)
    };
    if range.end - range.start > COLLECT_BYTES_MAX {
        let rest = lazily(core, path, sources);
        return Ok(Some(result(stream::iter(have.into_iter().map(Ok)).chain(rest).boxed())));
    }
    let pieces = stream::iter(sources).map(|source| read_source(core, source));
    match pieces.buffered(PIECES_MAX).try_collect::<Vec<Bytes>>().await {
        Ok(mut rest) => {
            have.append(&mut rest);
            Ok(Some(result(stream::iter(have.into_iter().map(Ok)).boxed())))
        }
        Err(Errno(libc::ERANGE | libc::EOVERFLOW | libc::ENOENT)) => {
            replaced_or_damaged(core, path, read.version).await
        }
        Err(errno) => Err(object::error(&core.pool, "get", path, errno)),
    }
}

/// Offset and length that the first request asks for; length 0 asks for no data.
fn first_request(options: &GetOptions) -> (u64, usize) {
    match &options.range {
        _ if options.head => (0, 0),
        None | Some(GetRange::Suffix(_)) => (0, FIRST_BYTES),
        Some(GetRange::Offset(offset)) => (*offset, FIRST_BYTES),
        Some(GetRange::Bounded(range)) => {
            let length = range.end.saturating_sub(range.start).min(PIECE_BYTES_MAX);
            (range.start, length as usize)
        }
    }
}

fn resolve(path: &Path, options: &GetOptions, description: &Description) -> Result<Range<u64>> {
    match &options.range {
        None => Ok(0..description.size),
        Some(range) => range.as_range(description.size).map_err(|error| {
            let (object, why) = (path.to_string(), error.to_string());
            Detail::Invalid { operation: "get", object, why }.at(STORE)
        }),
    }
}

/// None when the object has another version by now.
async fn read_layout(
    core: &Arc<Core>,
    path: &Path,
    name: &CString,
    version: u64,
) -> Result<Option<Layout>> {
    // A layout is a few bytes unless an upload had parts of ever changing lengths.
    let data = Some((0, PIECE_BYTES_MAX as usize));
    let ask = ReadOp { version: Some(version), data, ..ReadOp::default() };
    match core.pool.read(name, ask).await {
        Ok(read) => format::decode_layout(&read.data)
            .map(Some)
            .ok_or_else(|| object::corrupt(path, "its list of parts cannot be read")),
        Err(Errno(libc::ERANGE | libc::EOVERFLOW | libc::ENOENT)) => Ok(None),
        Err(errno) => Err(object::error(&core.pool, "get", path, errno)),
    }
}

fn part_sources(description: &Description, layout: &Layout, range: Range<u64>) -> Vec<Source> {
    let pieces = layout.pieces(range, PIECE_BYTES_MAX).into_iter();
    let source = |piece: format::Piece| Source {
        name: format::part_name(&description.nonce, piece.part),
        offset: piece.offset,
        length: piece.length,
        version: None,
    };
    pieces.map(source).collect()
}

fn whole_sources(name: &CString, version: u64, range: Range<u64>) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut offset = range.start;
    while offset < range.end {
        let length = (range.end - offset).min(PIECE_BYTES_MAX);
        sources.push(Source { name: name.clone(), offset, length, version: Some(version) });
        offset += length;
    }
    sources
}

async fn read_source(core: &Arc<Core>, source: Source) -> Result<Bytes, Errno> {
    let data = Some((source.offset, source.length as usize));
    let ask = ReadOp { version: source.version, data, ..ReadOp::default() };
    let read = core.pool.read(&source.name, ask).await?;
    if read.data.len() as u64 != source.length {
        return Err(Errno(libc::EIO));
    }
    Ok(read.data)
}

/// The rest of a long answer; an object that is replaced meanwhile ends it with an error.
fn lazily(
    core: &Arc<Core>,
    path: &Path,
    sources: Vec<Source>,
) -> BoxStream<'static, Result<Bytes>> {
    let (core, path) = (Arc::clone(core), path.clone());
    let read = move |source| {
        let (core, path) = (Arc::clone(&core), path.clone());
        async move {
            read_source(&core, source).await.map_err(|errno| match errno.0 {
                libc::ERANGE | libc::EOVERFLOW | libc::ENOENT => {
                    let (object, why) = (path.to_string(), "replaced meanwhile".to_owned());
                    Detail::Unavailable { operation: "get", object, why }.at(STORE)
                }
                _ => object::error(&core.pool, "get", &path, errno),
            })
        }
    };
    stream::iter(sources).map(read).buffered(PIECES_MAX).boxed()
}

/// A piece was not there: reads again if the object has changed, else something is lost.
async fn replaced_or_damaged(
    core: &Arc<Core>,
    path: &Path,
    version: u64,
) -> Result<Option<GetResult>, Error> {
    match object::describe(&core.pool, path).await? {
        Some(now) if now.version == version => Err(object::corrupt(path, "a part of it is gone")),
        _ => Ok(None),
    }
}
