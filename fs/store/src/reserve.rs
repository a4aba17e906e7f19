//! A put that may go through on a medium that is full.
//!
//! Data fails with `NoSpace` on a full medium, metadata goes on from what is kept for it. Some
//! data must pass as well, because without it no space would ever come back: what a cleaner
//! writes before it deletes more than that, and what a commit waits for that frees something.

use object_store::{Extensions, PutOptions};

/// In the extensions of a put: it may use what the medium keeps for metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UseReserve;

impl UseReserve {
    /// A put that overwrites and may use the reserve.
    pub fn put() -> PutOptions {
        let mut extensions = Extensions::new();
        extensions.insert(UseReserve);
        PutOptions { extensions, ..PutOptions::default() }
    }

    /// Whether these options say so.
    pub fn is_in(options: &PutOptions) -> bool {
        options.extensions.get::<UseReserve>().is_some()
    }
}
