//! The names of a pool's objects, in no order: all that RADOS can list.

use super::cluster::{Link, Pool};
use ceph::rados as ffi;
use std::ffi::CStr;
use std::io;
use std::ptr;
use std::sync::Arc;

/// A reader of object names, in no order. Blocks.
pub(super) struct Names {
    link: Arc<Link>,
    list: ffi::rados_list_ctx_t,
}

impl Names {
    pub(super) fn open(pool: &Arc<Pool>) -> io::Result<Names> {
        let mut list: ffi::rados_list_ctx_t = ptr::null_mut();
        let link = pool.link();
        // SAFETY: the link outlives the list, which holds it; `list` outlives the call.
        let code = unsafe { ffi::rados_nobjects_list_open(link.io, &mut list) };
        if code < 0 {
            return Err(io::Error::from_raw_os_error(-code));
        }
        Ok(Names { link, list })
    }

    /// The next name; None at the end. Names that are not UTF-8 are none of ours.
    pub(super) fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            let mut entry: *mut libc::c_char = ptr::null_mut();
            let none = ptr::null_mut();
            // SAFETY: the list is open; librados sets `entry` to a string of its own.
            let code = unsafe { next_entry(self.list, &mut entry, none, none) };
            if code == -libc::ENOENT {
                return Ok(None);
            }
            if code < 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
            // SAFETY: on success `entry` is a C string, valid until the next call.
            if let Ok(name) = unsafe { CStr::from_ptr(entry) }.to_str() {
                return Ok(Some(name.to_owned()));
            }
        }
    }
}

unsafe fn next_entry(
    list: ffi::rados_list_ctx_t,
    entry: *mut *mut libc::c_char,
    key: *mut *mut libc::c_char,
    namespace: *mut *mut libc::c_char,
) -> libc::c_int {
    // SAFETY: the caller's, who passes an open list; librados allows null for what is not asked.
    unsafe { ffi::rados_nobjects_list_next(list, entry.cast(), key.cast(), namespace.cast()) }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _held_until_here = &self.link;
        // SAFETY: the list was opened and is closed once.
        unsafe { ffi::rados_nobjects_list_close(self.list) };
    }
}
