//! One object in RADOS: reading its description, the words for its errors.

use super::STORE;
use super::cluster::Pool;
use super::format::{self, Description, XATTR};
use super::op::{Errno, ReadOp};
use crate::error::Detail;
use object_store::path::Path;
use object_store::{Error, Result};
use std::io;
use std::sync::Arc;

/// An object's description at the version it was read.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub(super) description: Description,
    pub(super) version: u64,
}

/// Reads what an object says about itself; None when there is none.
pub(super) async fn describe(pool: &Arc<Pool>, path: &Path) -> Result<Option<Described>> {
    let ask = ReadOp { xattr: Some(XATTR), ..ReadOp::default() };
    match pool.read(&format::object_name(path), ask).await {
        Err(Errno(libc::ENOENT)) => Ok(None),
        Err(errno) => Err(error(pool, "head", path, errno)),
        Ok(read) => {
            let description = decode(path, read.xattr.as_deref())?;
            Ok(Some(Described { description, version: read.version }))
        }
    }
}

pub(super) fn decode(path: &Path, xattr: Option<&[u8]>) -> Result<Description> {
    xattr
        .and_then(Description::decode)
        .ok_or_else(|| corrupt(path, "its description is missing or of another version"))
}

pub(super) fn corrupt(path: &Path, why: &str) -> Error {
    Detail::Corrupt { object: path.to_string(), why: why.to_owned() }.at(STORE)
}

/// An errno as its caller should see it.
pub(super) fn error(pool: &Pool, operation: &'static str, path: &Path, errno: Errno) -> Error {
    let object = path.to_string();
    let source = io::Error::from_raw_os_error(errno.0);
    match errno.0 {
        libc::ENOENT => Error::NotFound { path: object, source: source.into() },
        libc::EEXIST => Error::AlreadyExists { path: object, source: source.into() },
        libc::ERANGE | libc::EOVERFLOW => {
            Error::Precondition { path: object, source: "it is at another version".into() }
        }
        libc::ENOSPC | libc::EDQUOT => {
            let medium = format!("pool {}", pool.name);
            Detail::NoSpace { medium, object }.at(STORE)
        }
        libc::EPERM | libc::EACCES => {
            let source = format!("the Ceph user may not do that in pool {}", pool.name).into();
            Error::PermissionDenied { path: object, source }
        }
        // Ceph's EBLOCKLISTED: the cluster was told to hear this client no more, and an earlier
        // try may have happened. Another client is being made.
        libc::ESHUTDOWN => {
            let why = "this client is on the cluster's blocklist; connecting anew".to_owned();
            Detail::Unavailable { operation, object, why }.at(STORE)
        }
        libc::ENAMETOOLONG | libc::EINVAL | libc::EOPNOTSUPP | libc::EFBIG => {
            Detail::Invalid { operation, object, why: source.to_string() }.at(STORE)
        }
        libc::ETIMEDOUT => {
            let why = format!("pool {} did not answer in time", pool.name);
            Detail::Unavailable { operation, object, why }.at(STORE)
        }
        _ => Detail::Unavailable { operation, object, why: source.to_string() }.at(STORE),
    }
}
