//! Data that librados reads where it lies, until it has sent it.
//!
//! The C interface of librados copies what it is to write; its C++ interface takes buffers of
//! others (`lend.cc`). An answer does not say that librados needs them no more: a request that was
//! sent once more leaves the first message in a connection's queue, and the operation itself is
//! put away by another thread. So each buffer has a reference of ours, and its bytes stay until
//! that is the only one.

use super::ffi as more;
use libc::c_void;
use object_store::PutPayload;
use parking_lot::Mutex;

/// What was answered and may still be read.
static OUT: Mutex<Vec<Lent>> = Mutex::new(Vec::new());

/// Bytes that librados may read.
pub(super) struct Lent {
    buffers: *mut c_void,
    _data: PutPayload,
}

// SAFETY: the buffers count their references atomically, and nothing else is done with them.
unsafe impl Send for Lent {}

impl Lent {
    /// # Safety
    /// `buffers` comes from `yadokari_rados_put`, or is null; `data` is what it was given.
    pub(super) unsafe fn new(buffers: *mut c_void, data: PutPayload) -> Self {
        Self { buffers, _data: data }
    }

    /// Ends it once librados reads it no more.
    pub(super) fn end(self) {
        let mut out = OUT.lock();
        out.retain(|lent| !lent.is_back());
        if !self.is_back() {
            out.push(self);
        }
    }

    fn is_back(&self) -> bool {
        // SAFETY: the buffers are alive until this is dropped.
        self.buffers.is_null() || unsafe { more::yadokari_rados_lent_is_back(self.buffers) != 0 }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.buffers.is_null() {
            // SAFETY: they are ended once.
            unsafe { more::yadokari_rados_lent_end(self.buffers) };
        }
    }
}
