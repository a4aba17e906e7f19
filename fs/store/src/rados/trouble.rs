//! What can be wrong about reaching a cluster, in words that name the remedy.

use crate::error::StoreError;
use crate::url::RadosUrl;
use std::io;
use std::path::Path;

pub(super) fn failed(operation: &'static str, what: &str, code: i32) -> StoreError {
    let source = io::Error::from_raw_os_error(-code).into();
    StoreError::Failed { operation, what: what.to_owned(), source }
}

pub(super) fn conf_error(conf: &Path, code: i32) -> StoreError {
    let what = format!("Ceph configuration {}", conf.display());
    match -code {
        libc::ENOENT => StoreError::NotFound {
            what,
            remedy: "correct the parameter conf of the store URL".to_owned(),
        },
        libc::EACCES | libc::EPERM => {
            StoreError::Denied { what, remedy: "make it readable for this user".to_owned() }
        }
        _ => StoreError::Invalid {
            what,
            remedy: "Ceph cannot parse it: try `ceph-conf -c FILE --lookup fsid`".to_owned(),
        },
    }
}

pub(super) fn no_keyring(url: &RadosUrl, keyring: Option<&Path>) -> StoreError {
    let what = match keyring {
        Some(path) => format!("keyring {}", path.display()),
        None => format!("a key for client.{} in the keyrings that Ceph searches", url.client),
    };
    let remedy = format!(
        "write it with `ceph auth get client.{} -o FILE` and name it with ?keyring=FILE",
        url.client
    );
    StoreError::NotFound { what, remedy }
}

/// What rados_connect means by its codes.
pub(super) fn connect_error(url: &RadosUrl, code: i32) -> StoreError {
    let cluster = "the Ceph cluster".to_owned();
    match -code {
        libc::ETIMEDOUT => StoreError::Unreachable {
            what: "any monitor of the Ceph cluster".to_owned(),
            waited: url.timeout,
            remedy: "check mon_host in the Ceph configuration, the network, and `ceph -s`; \
                     ?timeout=30s waits longer"
                .to_owned(),
        },
        libc::EACCES | libc::EPERM => StoreError::Denied {
            what: cluster,
            remedy: format!(
                "the key of client.{0} is in no keyring, or not the one the cluster knows: \
                 compare with `ceph auth get client.{0}`",
                url.client
            ),
        },
        libc::ENOENT => no_keyring(url, url.keyring.as_deref()),
        libc::EINVAL => StoreError::Invalid {
            what: format!("the key of client.{}, or the Ceph configuration,", url.client),
            remedy: "check the keyring and mon_host".to_owned(),
        },
        _ => failed("connecting to", &cluster, code),
    }
}
