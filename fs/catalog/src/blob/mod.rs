//! Blobs: the record of each digest, and reading what it names.
//!
//! A record goes live → condemned → gone, and from either back to live. Condemned says that
//! nothing referred to the blob when somebody looked; gone, that nothing did at a second look
//! after the grace, and that its parts may go. Whoever tells anybody that a blob is there calls
//! [`Blobs::revive`] behind an intent in the owner's ledger: then either the second look sees the
//! intent, or its swap to gone loses against the revival, or the caller hears that it is gone.

mod parts;
mod read;
mod record;

pub(crate) use parts::{PARTS, Parts, part_path};
pub(crate) use record::{Blobs, Life, RECORDS, Record, record_digest, record_path};
