//! Data that stays where librados received it.
//!
//! The C interface of librados copies what was read into a buffer of the caller's; its C++
//! interface gives away the buffers that it received into (`receive.cc`). Their references are
//! counted, so they may be held as long as anybody likes, and ended on any thread.

use super::ffi as more;
use bytes::Bytes;
use libc::c_void;
use std::ffi::CStr;
use std::ptr;

/// Less is copied: what holds a buffer is as long as a short one, and a buffer is whole pages.
const HELD_BYTES_MIN: usize = 16 << 10;

/// What one request reads; librados writes to it until the callback.
#[derive(Debug)]
pub(super) struct Received(pub(super) *mut c_void);

// SAFETY: after the callback librados does nothing with it any more, and its buffers count their
// references atomically.
unsafe impl Send for Received {}

impl Received {
    /// Nothing yet.
    pub(super) const fn none() -> Self {
        Self(ptr::null_mut())
    }

    /// An extended attribute that came along; after the callback.
    pub(super) fn xattr(&mut self, name: &CStr) -> Option<Vec<u8>> {
        if self.0.is_null() {
            return None;
        }
        let mut len = 0;
        // SAFETY: it is alive, and the place for the length outlives the call.
        let value =
            unsafe { more::yadokari_rados_received_xattr(self.0, name.as_ptr(), &raw mut len) };
        if value.is_null() {
            return None;
        }
        // SAFETY: `value` points to `len` bytes, which live as long as `self`.
        Some(unsafe { std::slice::from_raw_parts(value.cast::<u8>(), len) }.to_vec())
    }

    /// The data that came; after the callback. `None` where there is no memory for it.
    pub(super) fn into_data(self) -> Option<Bytes> {
        if self.0.is_null() {
            return Some(Bytes::new());
        }
        let mut len = 0;
        // SAFETY: it is alive, and the place for the length outlives the call.
        let data = unsafe { more::yadokari_rados_received_data(self.0, &raw mut len) };
        if len == 0 {
            return Some(Bytes::new());
        }
        if data.is_null() {
            return None;
        }
        let data = Data { data: data.cast(), len, _of: self };
        Some(match len < HELD_BYTES_MIN {
            true => Bytes::copy_from_slice(data.as_ref()),
            false => Bytes::from_owner(data),
        })
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it is ended once.
            unsafe { more::yadokari_rados_received_end(self.0) };
        }
    }
}

/// Data in a buffer of librados.
struct Data {
    data: *const u8,
    len: usize,
    _of: Received,
}

// SAFETY: the bytes are not changed any more, and nothing else can be done with a reference.
unsafe impl Sync for Data {}
// SAFETY: as of what was received, which the pointer points into.
unsafe impl Send for Data {}

impl AsRef<[u8]> for Data {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: librados set `data` to `len` bytes, which live as long as `_of`.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}
