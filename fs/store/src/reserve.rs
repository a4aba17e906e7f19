//! What a put may be told beside its mode: that it may go through on a medium that is full, that
//! its name may reach the medium later, and that nobody here reads it soon.
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

/// In the extensions of a put: everybody sees it at once, and it survives the end of the process,
/// but when the machine loses power, what was there before may be there again. For what is of no
/// worth by itself, like how far an upload is; saves a sync where names are synced one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameLater;

impl NameLater {
    /// Extensions that say so.
    pub fn extensions() -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(NameLater);
        extensions
    }

    /// Whether these options say so.
    pub fn is_in(options: &PutOptions) -> bool {
        options.extensions.get::<NameLater>().is_some()
    }
}

/// In the extensions of a put: the object is not read on this machine soon, or whoever reads it
/// soon has its content in caches of its own. A store that writes through the memory of this
/// machine may leave that memory alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotReadSoon;

impl NotReadSoon {
    /// The same put, told so.
    pub fn add_to(mut options: PutOptions) -> PutOptions {
        options.extensions.insert(NotReadSoon);
        options
    }

    /// Whether these options say so.
    pub fn is_in(options: &PutOptions) -> bool {
        options.extensions.get::<NotReadSoon>().is_some()
    }
}
