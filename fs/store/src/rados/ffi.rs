//! What of librados' C interface the `ceph` crate does not declare.
//!
//! Source: `rados/librados.h` of Ceph 16. The `ceph` crate links the library.

use ceph::rados::{
    rados_callback_t, rados_completion_t, rados_ioctx_t, rados_omap_iter_t, rados_read_op_t,
    rados_write_op_t,
};
use libc::{c_char, c_int, c_uchar, c_uint, c_void, size_t};

/// Fail with ENOSPC or EDQUOT in a full pool or cluster instead of waiting for room.
pub(super) const OPERATION_FULL_TRY: c_int = 64;
/// Pass in a full pool or cluster: for what frees space.
pub(super) const OPERATION_FULL_FORCE: c_int = 128;
pub(super) const CMPXATTR_OP_EQ: u8 = 1;

/// `yadokari_piece` of `lend.cc`.
#[repr(C)]
pub(super) struct Piece {
    pub(super) data: *const u8,
    pub(super) len: c_uint,
}

/// `yadokari_put` of `lend.cc`.
#[repr(C)]
pub(super) struct PutCall {
    pub(super) object: *const c_char,
    pub(super) flags: c_int,
    pub(super) exclusive: c_int,
    pub(super) version: u64,
    pub(super) pieces: *const Piece,
    pub(super) pieces_len: size_t,
    pub(super) xattr: *const c_char,
    pub(super) value: *const u8,
    pub(super) value_len: c_uint,
}

/// `yadokari_get` of `receive.cc`.
#[repr(C)]
pub(super) struct GetCall {
    pub(super) object: *const c_char,
    pub(super) version: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) xattrs: c_int,
}

unsafe extern "C" {
    pub(super) fn yadokari_rados_put(
        io: rados_ioctx_t,
        put: *const PutCall,
        done: rados_callback_t,
        arg: *mut c_void,
        lent: *mut *mut c_void,
    ) -> c_int;

    pub(super) fn yadokari_rados_get(
        io: rados_ioctx_t,
        get: *const GetCall,
        done: rados_callback_t,
        arg: *mut c_void,
        received: *mut *mut c_void,
    ) -> c_int;

    pub(super) fn yadokari_rados_received_data(
        received: *mut c_void,
        len: *mut size_t,
    ) -> *const c_char;

    pub(super) fn yadokari_rados_received_xattr(
        received: *mut c_void,
        name: *const c_char,
        len: *mut size_t,
    ) -> *const c_char;

    pub(super) fn yadokari_rados_received_end(received: *mut c_void);

    pub(super) fn yadokari_rados_lent_is_back(lent: *const c_void) -> c_int;

    pub(super) fn yadokari_rados_lent_end(lent: *mut c_void);

    pub(super) fn rados_aio_get_version(completion: rados_completion_t) -> u64;

    pub(super) fn rados_write_op_omap_cmp2(
        op: rados_write_op_t,
        key: *const c_char,
        comparison: u8,
        value: *const c_char,
        key_len: size_t,
        value_len: size_t,
        result: *mut c_int,
    );

    pub(super) fn rados_write_op_omap_set2(
        op: rados_write_op_t,
        keys: *const *const c_char,
        values: *const *const c_char,
        key_lens: *const size_t,
        value_lens: *const size_t,
        count: size_t,
    );

    pub(super) fn rados_write_op_omap_rm_keys2(
        op: rados_write_op_t,
        keys: *const *const c_char,
        key_lens: *const size_t,
        count: size_t,
    );

    pub(super) fn rados_read_op_omap_get_vals2(
        op: rados_read_op_t,
        start_after: *const c_char,
        filter_prefix: *const c_char,
        max: u64,
        iter: *mut rados_omap_iter_t,
        more: *mut c_uchar,
        result: *mut c_int,
    );

    pub(super) fn rados_read_op_omap_get_vals_by_keys2(
        op: rados_read_op_t,
        keys: *const *const c_char,
        count: size_t,
        key_lens: *const size_t,
        iter: *mut rados_omap_iter_t,
        result: *mut c_int,
    );

    pub(super) fn rados_omap_get_next2(
        iter: rados_omap_iter_t,
        key: *mut *mut c_char,
        value: *mut *mut c_char,
        key_len: *mut size_t,
        value_len: *mut size_t,
    ) -> c_int;
}
