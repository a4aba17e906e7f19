//! What OCI distribution says, without any I/O: names in paths, manifests, errors, ranges, pages.
//!
//! Everything here is a pure function of its input, so that it can be tested with arbitrary
//! bytes. Nothing here panics on anything a client can send; sizes of inputs are limited by the
//! caller.

pub mod conditional;
pub mod error;
pub mod manifest;
pub mod media;
pub mod page;
pub mod query;
pub mod range;
pub mod referrers;
pub mod route;

pub use error::{ApiError, Code};
pub use manifest::Manifest;
pub use query::Query;
pub use route::{Reference, Route};
