//! Puts: one compound operation with data, description and condition, and the index beside it.

use super::STORE;
use super::confirm::{Job, To, confirmed};
use super::core::Core;
use super::format::{self, Description, Layout, Nonce, State, XATTR};
use super::index::PUT_TIME_MAX;
use super::object::{self, Described};
use super::op::{Condition, Errno, Full, Put, WriteOp};
use crate::error::Detail;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, Error, Extensions, PutMode, PutPayload, PutResult, Result, UpdateVersion,
};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Parts of one object that are written or removed at once.
const PARTS_MAX: usize = 8;
/// How often somebody else may replace an object between our reading and replacing it.
const RACES_MAX: u32 = 50;

/// What an object is made of when it is written.
pub(super) enum Content {
    /// The data itself.
    Whole(PutPayload),
    /// Parts that were written before, under this nonce.
    Parts(Nonce, Layout),
}

/// Why an object was not written.
enum Refused {
    /// The cluster's limit for one object.
    TooLarge,
    Error(Error),
}

impl Refused {
    fn into_error(self, path: &Path) -> Error {
        match self {
            Refused::Error(error) => error,
            Refused::TooLarge => {
                let why = "the cluster limits objects to less than was tried".to_owned();
                Detail::Invalid { operation: "put", object: path.to_string(), why }.at(STORE)
            }
        }
    }
}

pub(super) async fn put(
    core: &Arc<Core>,
    full: Full,
    path: &Path,
    payload: PutPayload,
    mode: &PutMode,
    attributes: &Attributes,
) -> Result<PutResult> {
    let length = payload.content_length() as u64;
    loop {
        let content = if length <= core.part_bytes() {
            Ok(Content::Whole(payload.clone()))
        } else {
            let nonce = core.next_nonce();
            let data = Bytes::from(payload.clone());
            let layout = write_parts(core, full, path, &nonce, &data, 0).await;
            layout.map(|layout| Content::Parts(nonce, layout))
        };
        let refused = match content {
            Ok(content) => match put_content(core, full, path, content, mode, attributes).await {
                Ok(done) => return Ok(done),
                Err(refused) => refused,
            },
            Err(refused) => refused,
        };
        match refused {
            Refused::TooLarge if core.shrink_parts(length) => {}
            refused => return Err(refused.into_error(path)),
        }
    }
}

/// Writes the parts of some data, from a part number on; gives their layout.
async fn write_parts(
    core: &Arc<Core>,
    full: Full,
    path: &Path,
    nonce: &Nonce,
    data: &Bytes,
    first: u32,
) -> Result<Layout, Refused> {
    let mut layout = Layout::default();
    let mut cuts = Vec::new();
    let limit = core.part_bytes() as usize;
    for (at, start) in (0..data.len()).step_by(limit).enumerate() {
        let piece = data.slice(start..data.len().min(start + limit));
        layout.push(piece.len() as u64);
        cuts.push((first + at as u32, piece));
    }
    let write = |(part, piece): (u32, Bytes)| async move {
        let put = Put { condition: Condition::New, data: piece.into(), xattr: None };
        let written = core.pool.put(&format::part_name(nonce, part), put, full).await;
        match written {
            Err(Errno(libc::EFBIG | libc::EMSGSIZE)) => Err(Refused::TooLarge),
            Err(errno) => Err(Refused::Error(object::error(&core.pool, "put", path, errno))),
            Ok(_) => Ok(()),
        }
    };
    let written = stream::iter(cuts).map(write).buffer_unordered(PARTS_MAX);
    match written.try_collect::<()>().await {
        Ok(()) => Ok(layout),
        Err(refused) => {
            remove_parts_later(core, *nonce);
            Err(refused)
        }
    }
}

/// Puts what a stream gives, in parts as it comes when it is long.
pub(super) async fn put_stream(
    core: &Arc<Core>,
    full: Full,
    path: &Path,
    mut data: BoxStream<'static, Result<Bytes>>,
    mode: &PutMode,
    attributes: &Attributes,
) -> Result<PutResult> {
    let (nonce, mut layout) = (core.next_nonce(), Layout::default());
    let limit = core.part_bytes() as usize;
    let mut buffer = BytesMut::new();
    loop {
        let chunk = data.try_next().await?;
        let last = chunk.is_none();
        buffer.extend(chunk);
        if last && layout.parts() == 0 {
            return put(core, full, path, buffer.freeze().into(), mode, attributes).await;
        }
        while buffer.len() > limit || (last && !buffer.is_empty()) {
            let part = buffer.split_to(limit.min(buffer.len())).freeze();
            let written = write_parts(core, full, path, &nonce, &part, layout.parts()).await;
            written.map_err(|refused| refused.into_error(path))?;
            layout.push(part.len() as u64);
        }
        if last {
            return put_parts(core, full, path, (nonce, layout), mode, attributes).await;
        }
    }
}

/// Writes the object that names its parts.
pub(super) async fn put_parts(
    core: &Arc<Core>,
    full: Full,
    path: &Path,
    parts: (Nonce, Layout),
    mode: &PutMode,
    attributes: &Attributes,
) -> Result<PutResult> {
    let content = Content::Parts(parts.0, parts.1);
    let put = put_content(core, full, path, content, mode, attributes).await;
    put.map_err(|refused| refused.into_error(path))
}

/// Writes object and index entry in parallel; acknowledged when both are there.
async fn put_content(
    core: &Arc<Core>,
    full: Full,
    path: &Path,
    content: Content,
    mode: &PutMode,
    attributes: &Attributes,
) -> Result<PutResult, Refused> {
    let (data, nonce, size, parts) = match content {
        Content::Whole(data) => {
            let size = data.content_length() as u64;
            (data, core.next_nonce(), size, None)
        }
        Content::Parts(nonce, layout) => {
            (PutPayload::from(layout.encode()), nonce, layout.size(), Some(nonce))
        }
    };
    let description = Description {
        nonce,
        in_parts: parts.is_some(),
        modified: format::whole_micros(SystemTime::now()),
        size,
        attributes: attributes.clone(),
    };
    let started = Instant::now();
    let entry = core.index.write(path, State::Pending, nonce, full);
    let object = write_object(core, full, path, &description, &data, mode);
    let (entry, object) = futures::future::join(entry, object).await;
    // Without the entry nothing is acknowledged, not even that the object was there before:
    // whoever repeats this put must come back here.
    let index_error = |errno| Refused::Error(object::error(&core.pool, "index", path, errno));
    let mut old = entry.map_err(index_error)?;
    let (version, replaced) = match object {
        Ok(done) => done,
        Err(refused) => {
            core.confirmer.send(Job { path: path.clone(), old, to: To::Verified });
            if let (Some(nonce), true) = (parts, is_final(&refused)) {
                remove_parts_later(core, nonce);
            }
            return Err(refused);
        }
    };
    if started.elapsed() > PUT_TIME_MAX {
        let again = core.index.write(path, State::Pending, nonce, full).await;
        old = again.map_err(index_error)?;
    }
    let e_tag = Some(format::e_tag(version, description.in_parts));
    let to = To::Confirmed(confirmed(&Described { description, version }));
    core.confirmer.send(Job { path: path.clone(), old, to });
    if let Some(nonce) = replaced {
        remove_parts_later(core, nonce);
    }
    Ok(PutResult { e_tag, version: None, extensions: Extensions::new() })
}

/// The object's write alone. Gives its version, and the nonce of parts that it left behind.
async fn write_object(
    core: &Arc<Core>,
    full: Full,
    path: &Path,
    description: &Description,
    data: &PutPayload,
    mode: &PutMode,
) -> Result<(u64, Option<Nonce>), Refused> {
    let Some(xattr) = description.encode() else {
        let why = "its attributes are not storable".to_owned();
        let object = path.to_string();
        return Err(Refused::Error(Detail::Invalid { operation: "put", object, why }.at(STORE)));
    };
    let name = format::object_name(path);
    let write = |condition: Condition| {
        let put = Put { condition, data: data.clone(), xattr: Some((XATTR, &xattr)) };
        core.pool.put(&name, put, full)
    };
    let refuse = |errno: Errno| match errno.0 {
        libc::EFBIG | libc::EMSGSIZE => Refused::TooLarge,
        _ => Refused::Error(object::error(&core.pool, "put", path, errno)),
    };
    match mode {
        PutMode::Create => {
            let version = write(Condition::New).await.map_err(refuse)?;
            Ok((version, None))
        }
        PutMode::Update(expected) => {
            let (version, in_parts) = expected_version(path, expected).map_err(Refused::Error)?;
            let replaced = match in_parts {
                false => None,
                true => object::describe(&core.pool, path).await.map_err(Refused::Error)?,
            };
            match write(Condition::Version(version)).await {
                Err(Errno(libc::ENOENT)) => Err(refuse(Errno(libc::ERANGE))),
                Err(errno) => Err(refuse(errno)),
                // What was described at another version was not what this put replaced.
                Ok(now) => Ok((now, replaced.filter(|r| r.version == version).and_then(parts_of))),
            }
        }
        PutMode::Overwrite => {
            for _ in 0..RACES_MAX {
                match write(Condition::New).await {
                    Err(Errno(libc::EEXIST)) => {}
                    other => return other.map(|version| (version, None)).map_err(refuse),
                }
                let there = object::describe(&core.pool, path).await.map_err(Refused::Error)?;
                let Some(there) = there else { continue };
                match write(Condition::Version(there.version)).await {
                    Err(Errno(libc::ERANGE | libc::EOVERFLOW | libc::ENOENT)) => {}
                    other => {
                        return other.map(|now| (now, parts_of(there))).map_err(refuse);
                    }
                }
            }
            let why = "others keep replacing it".to_owned();
            let object = path.to_string();
            Err(Refused::Error(Detail::Unavailable { operation: "put", object, why }.at(STORE)))
        }
    }
}

fn parts_of(described: Described) -> Option<Nonce> {
    let description = described.description;
    description.in_parts.then_some(description.nonce)
}

fn expected_version(path: &Path, expected: &UpdateVersion) -> Result<(u64, bool)> {
    let parsed = expected.e_tag.as_deref().and_then(format::parse_e_tag);
    parsed.ok_or_else(|| {
        let source = "the expected version is none of this store".into();
        Error::Precondition { path: path.to_string(), source }
    })
}

/// True when the write certainly did not happen.
fn is_final(refused: &Refused) -> bool {
    match refused {
        Refused::TooLarge => true,
        Refused::Error(error) => !crate::error::is_transient(error),
    }
}

/// Removes parts that no object names, in the background. A crash leaves them to a scan.
pub(super) fn remove_parts_later(core: &Arc<Core>, nonce: Nonce) {
    let core = Arc::clone(core);
    tokio::spawn(async move { remove_parts(&core, &nonce).await });
}

/// Removes the parts of one nonce, in their order, up to the first that is not there.
pub(super) async fn remove_parts(core: &Arc<Core>, nonce: &Nonce) {
    let removed = stream::iter(0u32..)
        .map(|part| async move {
            let op = WriteOp::new().remove();
            core.pool.write(&format::part_name(nonce, part), op, Full::Force, 0).await
        })
        .buffered(PARTS_MAX);
    let mut removed = std::pin::pin!(removed);
    while let Some(Ok(_)) = removed.next().await {}
}
