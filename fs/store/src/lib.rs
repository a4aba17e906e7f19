//! One object store behind one trait: RADOS, files, memory, S3.
//!
//! [`StoreUrl`] names a store, [`Store::open`] opens it, and from there on everything is
//! `object_store::ObjectStore` with `Create`, `Update` and attributes on every backend. Objects
//! are written once; what changes is a [`head`], swapped by compare-and-swap. Wrappers stack on
//! the trait: [`retry`] bounds and repeats, [`trace`] counts, [`fault`] breaks things on purpose.
//!
//! What the objects mean is none of this crate's business.

mod attrs;
pub mod error;
pub mod fault;
mod file;
pub mod head;
mod pool;
#[cfg(feature = "rados")]
mod rados;
#[cfg(feature = "rados")]
pub use rados::leave;
mod reserve;
pub mod retry;
#[cfg(feature = "s3")]
mod s3;
mod store;
pub mod trace;
pub mod url;

pub use error::{Kind, StoreError, is_transient, kind};
pub use object_store;
pub use pool::BlockingPool;
pub use reserve::{NameLater, NotReadSoon, UseReserve};
pub use store::{Role, ScanReport, Store, StoreOptions, Usage};
pub use url::{StoreUrl, UrlError};

/// Ends the process with `code`.
#[cfg(not(feature = "rados"))]
pub fn leave(code: u8) -> ! {
    std::process::exit(i32::from(code))
}
