//! Heads: small objects that are read whole, carry a checksum and change by compare-and-swap.
//!
//! A head is the only kind of object that ever changes. Whoever swaps one names the version that
//! was read; when somebody else was quicker the swap is refused and nothing is changed. On the
//! store a head is
//!
//! ```text
//! "YHD1", BLAKE3 of the content (32 bytes), content
//! ```
//!
//! What the content means is the caller's business. Wrap the store in `RetryStore` to have an
//! answer that was lost told apart from a swap that somebody else won.

use crate::NameLater;
use crate::error::{Kind, kind};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    GetOptions, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    UpdateVersion,
};

const MAGIC: &[u8; 4] = b"YHD1";
const HEADER_BYTES: usize = MAGIC.len() + blake3::OUT_LEN;
/// A head is read and rewritten whole, so a large one is a design error.
pub const HEAD_BYTES_MAX: usize = 4 << 20;

/// The state of a head that was read or written; only good for swapping that very state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadVersion(UpdateVersion);

/// A head's content and the version to swap it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub data: Bytes,
    pub version: HeadVersion,
}

/// Why a head could not be read or written, by what the caller must do.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    #[error("head {0} does not exist")]
    NotFound(Path),
    #[error("head {0} exists already")]
    Exists(Path),
    /// Somebody else swapped it first: read it again and decide anew.
    #[error("head {0} was changed by somebody else")]
    Conflict(Path),
    #[error("head {path} is damaged: {why}")]
    Corrupt { path: Path, why: &'static str },
    #[error("no space left to write head {0}")]
    NoSpace(Path),
    /// The store failed; a write may or may not have happened.
    #[error("head {path} could not be {done}")]
    Store {
        path: Path,
        done: &'static str,
        #[source]
        source: object_store::Error,
    },
}

/// Reads a head and verifies its checksum.
pub async fn read_head(store: &dyn ObjectStore, path: &Path) -> Result<Head, HeadError> {
    let result = store.get(path).await.map_err(|e| error(path, "read", e))?;
    read_result(path, result).await
}

async fn read_result(path: &Path, result: GetResult) -> Result<Head, HeadError> {
    let version = HeadVersion(UpdateVersion {
        e_tag: result.meta.e_tag.clone(),
        version: result.meta.version.clone(),
    });
    if result.meta.size > (HEAD_BYTES_MAX + HEADER_BYTES) as u64 {
        return Err(HeadError::Corrupt { path: path.clone(), why: "too long for a head" });
    }
    let bytes = result.bytes().await.map_err(|e| error(path, "read", e))?;
    let data = open(&bytes).map_err(|why| HeadError::Corrupt { path: path.clone(), why })?;
    Ok(Head { data, version })
}

/// What a head is now, for somebody who knows a state of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadNow {
    /// Still as it was read.
    Same,
    /// Another state.
    Changed(Head),
    /// It does not exist any more.
    Gone,
}

/// Reads a head only if it is no longer in the state that is known: a question to the store, but
/// no data when nothing changed.
pub async fn refresh_head(
    store: &dyn ObjectStore,
    path: &Path,
    known: &HeadVersion,
) -> Result<HeadNow, HeadError> {
    let options = GetOptions { if_none_match: known.0.e_tag.clone(), ..GetOptions::default() };
    match store.get_opts(path, options).await {
        Ok(result) => read_result(path, result).await.map(HeadNow::Changed),
        Err(source) => match kind(&source) {
            Kind::NotModified => Ok(HeadNow::Same),
            Kind::NotFound => Ok(HeadNow::Gone),
            _ => Err(error(path, "read", source)),
        },
    }
}

/// Like [`read_head`]; a head that does not exist is `None`.
pub async fn find_head(store: &dyn ObjectStore, path: &Path) -> Result<Option<Head>, HeadError> {
    match read_head(store, path).await {
        Ok(head) => Ok(Some(head)),
        Err(HeadError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a head that does not exist yet; `Exists` when it does.
pub async fn create_head(
    store: &dyn ObjectStore,
    path: &Path,
    data: &[u8],
) -> Result<HeadVersion, HeadError> {
    put(store, path, data, PutMode::Create.into()).await
}

/// Replaces the state that was read as `version`; `Conflict` when it is no longer that one.
pub async fn swap_head(
    store: &dyn ObjectStore,
    path: &Path,
    version: &HeadVersion,
    data: &[u8],
) -> Result<HeadVersion, HeadError> {
    put(store, path, data, PutMode::Update(version.0.clone()).into()).await
}

/// [`create_head`] or, with a version, [`swap_head`], whose name may reach the medium later.
pub async fn write_head_lazily(
    store: &dyn ObjectStore,
    path: &Path,
    version: Option<&HeadVersion>,
    data: &[u8],
) -> Result<HeadVersion, HeadError> {
    let mode = version.map_or(PutMode::Create, |version| PutMode::Update(version.0.clone()));
    let extensions = NameLater::extensions();
    put(store, path, data, PutOptions { mode, extensions, ..PutOptions::default() }).await
}

async fn put(
    store: &dyn ObjectStore,
    path: &Path,
    data: &[u8],
    options: PutOptions,
) -> Result<HeadVersion, HeadError> {
    assert!(data.len() <= HEAD_BYTES_MAX, "a head of {} bytes: {path}", data.len());
    let payload = PutPayload::from(seal(data));
    let result = store.put_opts(path, payload, options).await;
    let done = result.map_err(|e| error(path, "written", e))?;
    Ok(HeadVersion(done.into()))
}

/// Content with magic and checksum in front.
pub fn seal(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + data.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(blake3::hash(data).as_bytes());
    out.extend_from_slice(data);
    out
}

/// The content of a sealed object, or what is wrong with it.
pub fn open(bytes: &Bytes) -> Result<Bytes, &'static str> {
    if bytes.len() < HEADER_BYTES {
        return Err("shorter than its header");
    }
    if &bytes[..MAGIC.len()] != MAGIC {
        return Err("not a head, or one of another version");
    }
    let data = bytes.slice(HEADER_BYTES..);
    if blake3::hash(&data).as_bytes()[..] != bytes[MAGIC.len()..HEADER_BYTES] {
        return Err("its checksum does not match");
    }
    Ok(data)
}

fn error(path: &Path, done: &'static str, source: object_store::Error) -> HeadError {
    let path = path.clone();
    match kind(&source) {
        Kind::NotFound => HeadError::NotFound(path),
        Kind::Exists => HeadError::Exists(path),
        Kind::Conflict => HeadError::Conflict(path),
        Kind::NoSpace => HeadError::NoSpace(path),
        Kind::Corrupt => HeadError::Corrupt { path, why: "the store cannot read it" },
        Kind::NotModified | Kind::Unavailable | Kind::Denied | Kind::Invalid => {
            HeadError::Store { path, done, source }
        }
    }
}
