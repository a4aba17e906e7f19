//! Requests to OSDs: compound operations that are submitted at once and awaited without a thread.
//!
//! Everything that librados writes to while a request is in flight (iterators, result codes) lies in one heap block that belongs to the request. The completion callback
//! takes that block back, turns it into an answer and sends it to whoever waits, if anybody still
//! does. So a future can be dropped at any time: the block lives until the callback.

use super::cluster::{Link, Pool, Room};
use super::exit::UnderWay;
use super::ffi as more;
use super::lend::Lent;
use super::receive::Received;
use bytes::Bytes;
use ceph::rados as ffi;
use libc::{c_char, c_int, c_uint, c_void};
use object_store::PutPayload;
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A negative errno of the OSD or of librados, as a positive number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Errno(pub(super) i32);

/// What happens in a full pool or cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// Fail with ENOSPC.
    Try,
    /// Go through: this frees space, or is needed by what does.
    Force,
}

impl Full {
    fn flags(self) -> c_int {
        match self {
            Full::Try => more::OPERATION_FULL_TRY,
            Full::Force => more::OPERATION_FULL_FORCE,
        }
    }
}

/// The longest buffer that is lent to librados, which counts in 32 bits.
const PIECE_BYTES_MAX: usize = 1 << 30;

/// Under which an object is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// Refused with EEXIST when the object exists.
    New,
    /// Refused with ERANGE or EOVERFLOW when the object is at another version.
    Version(u64),
}

/// The write of a whole object.
pub(super) struct Put<'a> {
    pub(super) condition: Condition,
    pub(super) data: PutPayload,
    /// An extended attribute beside it.
    pub(super) xattr: Option<(&'a CStr, &'a [u8])>,
}

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// True on librados' own threads while they run one of our callbacks.
pub(super) fn in_callback() -> bool {
    IN_CALLBACK.get()
}

/// A compound write: all of it happens or nothing.
pub(super) struct WriteOp(ffi::rados_write_op_t);

// SAFETY: a write op is a plain heap object of librados that only its owner uses.
unsafe impl Send for WriteOp {}
// SAFETY: nothing can be done with a shared reference.
unsafe impl Sync for WriteOp {}

impl Drop for WriteOp {
    fn drop(&mut self) {
        // SAFETY: it was created by rados_create_write_op and is released once; librados keeps
        // a copy of what was submitted.
        unsafe { ffi::rados_release_write_op(self.0) };
    }
}

impl WriteOp {
    pub(super) fn new() -> Self {
        // SAFETY: no arguments.
        let op = unsafe { ffi::rados_create_write_op() };
        assert!(!op.is_null(), "librados has no memory for a write operation");
        WriteOp(op)
    }

    /// Refused with EEXIST when the object exists.
    pub(super) fn create_exclusive(self) -> Self {
        // SAFETY: the op is alive; the category is no longer used and may be null.
        unsafe { ffi::rados_write_op_create(self.0, 1, ptr::null()) };
        self
    }

    /// Refused with ERANGE or EOVERFLOW when the object is at another version.
    pub(super) fn assert_version(self, version: u64) -> Self {
        // SAFETY: the op is alive.
        unsafe { ffi::rados_write_op_assert_version(self.0, version) };
        self
    }

    pub(super) fn write_full(self, data: &[u8]) -> Self {
        // SAFETY: librados copies the bytes during the call.
        unsafe { ffi::rados_write_op_write_full(self.0, data.as_ptr().cast(), data.len()) };
        self
    }

    pub(super) fn remove(self) -> Self {
        // SAFETY: the op is alive.
        unsafe { ffi::rados_write_op_remove(self.0) };
        self
    }

    /// Refused with ECANCELED unless the key has this value.
    pub(super) fn omap_is(self, key: &str, value: &[u8]) -> Self {
        let (key_len, value_len) = (key.len(), value.len());
        let (key, value) = (key.as_ptr().cast(), value.as_ptr().cast());
        let (eq, no_result) = (more::CMPXATTR_OP_EQ, ptr::null_mut());
        // SAFETY: librados copies key and value during the call and needs no place for a result.
        unsafe {
            more::rados_write_op_omap_cmp2(self.0, key, eq, value, key_len, value_len, no_result);
        }
        self
    }

    pub(super) fn omap_set(self, key: &str, value: &[u8]) -> Self {
        let keys: [*const c_char; 1] = [key.as_ptr().cast()];
        let values: [*const c_char; 1] = [value.as_ptr().cast()];
        let (key_lens, value_lens) = ([key.len()], [value.len()]);
        // SAFETY: four arrays of one; librados copies what they point to during the call.
        unsafe {
            more::rados_write_op_omap_set2(
                self.0,
                keys.as_ptr(),
                values.as_ptr(),
                key_lens.as_ptr(),
                value_lens.as_ptr(),
                1,
            );
        }
        self
    }

    pub(super) fn omap_remove(self, key: &str) -> Self {
        let keys: [*const c_char; 1] = [key.as_ptr().cast()];
        let lens = [key.len()];
        // SAFETY: two arrays of one; librados copies what they point to during the call.
        unsafe { more::rados_write_op_omap_rm_keys2(self.0, keys.as_ptr(), lens.as_ptr(), 1) };
        self
    }
}

/// What a read asks of one object, all of it at one version.
#[derive(Debug, Default)]
pub(super) struct ReadOp {
    /// Refused with ERANGE or EOVERFLOW when the object is at another version.
    pub(super) version: Option<u64>,
    /// This extended attribute.
    pub(super) xattr: Option<&'static CStr>,
    /// Offset and length; what lies beyond the end is not there.
    pub(super) data: Option<(u64, usize)>,
    /// Size and modification time.
    pub(super) stat: bool,
    pub(super) omap: Option<Omap>,
}

#[derive(Debug)]
pub(super) enum Omap {
    /// Keys with a prefix behind another key, in order, at most so many.
    Range {
        after: CString,
        prefix: CString,
        max: u64,
    },
    Key(String),
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) version: u64,
    pub(super) xattr: Option<Vec<u8>>,
    pub(super) data: Bytes,
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) modified: i64,
    pub(super) omap: Vec<(String, Vec<u8>)>,
    /// There are more keys behind the last one.
    pub(super) omap_more: bool,
}

/// Everything librados may write to until the callback.
struct InFlight {
    answer: Option<oneshot::Sender<Result<Read, Errno>>>,
    received: Received,
    xattr: Option<&'static CStr>,
    omap: ffi::rados_omap_iter_t,
    omap_more: u8,
    size: u64,
    modified: libc::time_t,
    results: [c_int; 2],
    /// What a put lends to librados.
    lent: *mut c_void,
    lent_data: PutPayload,
    _room: Room,
    /// Dropped after all that librados writes to: it must outlive the request.
    link: Arc<Link>,
    /// Dropped last: the end of the process waits for all of the above.
    _under_way: UnderWay,
}

type Waiting = oneshot::Receiver<Result<Read, Errno>>;

impl InFlight {
    fn new(link: Arc<Link>, room: Room) -> (Box<InFlight>, Waiting) {
        let (answer, waiting) = oneshot::channel();
        let block = Box::new(InFlight {
            answer: Some(answer),
            received: Received::none(),
            xattr: None,
            omap: ptr::null_mut(),
            omap_more: 0,
            size: 0,
            modified: 0,
            results: [0; 2],
            lent: ptr::null_mut(),
            lent_data: PutPayload::default(),
            _room: room,
            link,
            _under_way: UnderWay::begin(),
        });
        (block, waiting)
    }

    fn collect(&mut self, version: u64) -> Result<Read, Errno> {
        let mut received = std::mem::replace(&mut self.received, Received::none());
        Ok(Read {
            version,
            xattr: self.xattr.and_then(|name| received.xattr(name)),
            data: received.into_data().ok_or(Errno(libc::ENOMEM))?,
            size: self.size,
            modified: self.modified,
            omap: self.collect_omap(),
            omap_more: self.omap_more != 0,
        })
    }

    fn collect_omap(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        while !self.omap.is_null() {
            let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
            let (mut key_len, mut value_len) = (0, 0);
            // SAFETY: the iterator was made by the request that has completed; the out places
            // outlive the call.
            let code = unsafe {
                more::rados_omap_get_next2(
                    self.omap,
                    &mut key,
                    &mut value,
                    &mut key_len,
                    &mut value_len,
                )
            };
            if code < 0 || key.is_null() {
                break;
            }
            // SAFETY: librados set both to bytes of the iterator, which is alive.
            let (key, value) = unsafe { (copy(key, key_len), copy(value, value_len)) };
            if let Ok(key) = String::from_utf8(key) {
                all.push((key, value));
            }
        }
        all
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.omap.is_null() {
            // SAFETY: the iterator is ours and ended once.
            unsafe { ffi::rados_omap_get_end(self.omap) };
        }
        if !self.lent.is_null() {
            let data = std::mem::take(&mut self.lent_data);
            // SAFETY: both belong to the put of this block.
            unsafe { Lent::new(self.lent, data) }.end();
        }
    }
}

/// Copies bytes that librados owns.
///
/// # Safety
/// `data` points to `len` readable bytes, or `len` is 0.
unsafe fn copy(data: *const c_char, len: usize) -> Vec<u8> {
    if len == 0 {
        return Vec::new();
    }
    // SAFETY: the caller's.
    unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }.to_vec()
}

extern "C" fn completed(completion: ffi::rados_completion_t, arg: *mut c_void) {
    answer(completion, arg);
    // SAFETY: the completion is alive during its callback; our reference ends here.
    unsafe { ffi::rados_aio_release(completion) };
}

/// Likewise for one of the C++ interface, which has no reference of ours.
extern "C" fn completed_cxx(completion: ffi::rados_completion_t, arg: *mut c_void) {
    answer(completion, arg);
}

fn answer(completion: ffi::rados_completion_t, arg: *mut c_void) {
    IN_CALLBACK.set(true);
    // SAFETY: `arg` is the block that `submit` gave up to this one call of the callback.
    let mut block = unsafe { Box::from_raw(arg.cast::<InFlight>()) };
    // SAFETY: the completion is alive during its callback.
    let (code, version) = unsafe {
        let code = ffi::rados_aio_get_return_value(completion);
        (code, more::rados_aio_get_version(completion))
    };
    let answer = if code < 0 { Err(Errno(-code)) } else { block.collect(version) };
    if let Some(waiting) = block.answer.take() {
        // Nobody waits when the future was dropped.
        let _unheard = waiting.send(answer);
    }
    drop(block);
    IN_CALLBACK.set(false);
}

/// Gives the block to librados and runs `start` with its completion. When `start` fails the
/// callback does not come, and the error is the answer.
///
/// # Safety
/// `block` comes from `Box::into_raw` and is used by nobody else from here on.
unsafe fn submit(block: *mut InFlight, start: impl FnOnce(ffi::rados_completion_t) -> c_int) {
    let mut completion: ffi::rados_completion_t = ptr::null_mut();
    // SAFETY: the callback matches the type; the block stays valid until it runs.
    let mut code = unsafe {
        ffi::rados_aio_create_completion(block.cast(), Some(completed), None, &mut completion)
    };
    if code >= 0 {
        code = start(completion);
        if code < 0 {
            // SAFETY: the completion was not taken by any request.
            unsafe { ffi::rados_aio_release(completion) };
        }
    }
    if code < 0 {
        // SAFETY: no request was started, so no callback will take the block.
        unsafe { refuse(block, code) };
    }
}

/// The answer where a request was not started.
///
/// # Safety
/// `block` comes from `Box::into_raw` and is used by nobody else from here on.
unsafe fn refuse(block: *mut InFlight, code: c_int) {
    // SAFETY: the caller's.
    let mut block = unsafe { Box::from_raw(block) };
    if let Some(waiting) = block.answer.take() {
        let _unheard = waiting.send(Err(Errno(-code)));
    }
}

async fn wait(waiting: Waiting) -> Result<Read, Errno> {
    // The sender is dropped unsent only if librados dropped a completion, which it does not.
    waiting.await.unwrap_or(Err(Errno(libc::EIO)))
}

impl Pool {
    /// Sends a compound write; gives the object's new version.
    pub(super) async fn write(
        self: &Arc<Self>,
        object: &CStr,
        op: WriteOp,
        full: Full,
        bytes: usize,
    ) -> Result<u64, Errno> {
        let room = self.room(bytes).await;
        let link = self.link();
        let (block, waiting) = InFlight::new(Arc::clone(&link), room);
        submit_write(object, op, full.flags(), block);
        Ok(self.heard(link, wait(waiting).await)?.version)
    }

    /// Writes an object; gives its new version. Its data is not copied.
    pub(super) async fn put(
        self: &Arc<Self>,
        object: &CStr,
        put: Put<'_>,
        full: Full,
    ) -> Result<u64, Errno> {
        let room = self.room(put.data.content_length()).await;
        let link = self.link();
        let (block, waiting) = InFlight::new(Arc::clone(&link), room);
        submit_put(object, &put, full.flags(), block);
        Ok(self.heard(link, wait(waiting).await)?.version)
    }

    /// Sends a compound read.
    pub(super) async fn read(self: &Arc<Self>, object: &CStr, ask: ReadOp) -> Result<Read, Errno> {
        let room = self.room(ask.data.map_or(0, |(_, length)| length)).await;
        let link = self.link();
        let (block, waiting) = InFlight::new(Arc::clone(&link), room);
        match ask.stat || ask.omap.is_some() {
            true => submit_read(object, &ask, block),
            false => submit_get(object, &ask, block),
        }
        self.heard(link, wait(waiting).await)
    }

    /// Passes an answer on; where it says that this client is heard no more, another one is made.
    fn heard(
        self: &Arc<Self>,
        link: Arc<Link>,
        answer: Result<Read, Errno>,
    ) -> Result<Read, Errno> {
        if let Err(Errno(libc::ESHUTDOWN)) = answer {
            self.renew(link);
        }
        answer
    }
}

fn submit_put(object: &CStr, put: &Put, flags: c_int, mut block: Box<InFlight>) {
    let pieces: Vec<more::Piece> = put
        .data
        .iter()
        // librados has no empty buffers, and lengths of 32 bits.
        .flat_map(|bytes| bytes.chunks(PIECE_BYTES_MAX))
        .map(|piece| more::Piece { data: piece.as_ptr(), len: piece.len() as c_uint })
        .collect();
    let (xattr, value) = match &put.xattr {
        Some((name, value)) => (name.as_ptr(), &value[..]),
        None => (ptr::null(), &[][..]),
    };
    let call = more::PutCall {
        object: object.as_ptr(),
        flags,
        exclusive: c_int::from(put.condition == Condition::New),
        version: match put.condition {
            Condition::New => 0,
            Condition::Version(version) => version,
        },
        pieces: pieces.as_ptr(),
        pieces_len: pieces.len(),
        xattr,
        value: value.as_ptr(),
        value_len: value.len() as c_uint,
    };
    block.lent_data = put.data.clone();
    let link = Arc::clone(&block.link);
    let raw = Box::into_raw(block);
    // SAFETY: the link is alive; what the call points to is copied, but for the pieces, which the
    // block keeps; the block is given up to the callback, which matches the type.
    let code = unsafe {
        let (arg, lent) = (raw.cast(), &raw mut (*raw).lent);
        more::yadokari_rados_put(link.io, &call, Some(completed_cxx), arg, lent)
    };
    if code < 0 {
        // SAFETY: no request was started, so no callback will take the block.
        unsafe { refuse(raw, code) };
    }
}

fn submit_get(object: &CStr, ask: &ReadOp, mut block: Box<InFlight>) {
    let (offset, length) = ask.data.unwrap_or_default();
    let call = more::GetCall {
        object: object.as_ptr(),
        version: ask.version.unwrap_or(0),
        offset,
        length: length as u64,
        xattrs: c_int::from(ask.xattr.is_some()),
    };
    block.xattr = ask.xattr;
    let link = Arc::clone(&block.link);
    let raw = Box::into_raw(block);
    // SAFETY: the link is alive; what the call points to is copied; the block is given up to the
    // callback, which matches the type.
    let code = unsafe {
        let (arg, received) = (raw.cast(), &raw mut (*raw).received.0);
        more::yadokari_rados_get(link.io, &call, Some(completed_cxx), arg, received)
    };
    if code < 0 {
        // SAFETY: no request was started, so no callback will take the block.
        unsafe { refuse(raw, code) };
    }
}

fn submit_write(object: &CStr, op: WriteOp, flags: c_int, block: Box<InFlight>) {
    let link = Arc::clone(&block.link);
    let (name, now) = (object.as_ptr(), ptr::null_mut());
    let start = |completion| {
        // SAFETY: op, link and completion are alive; librados copies the name and the op.
        unsafe { ffi::rados_aio_write_op_operate(op.0, link.io, completion, name, now, flags) }
    };
    // SAFETY: the block is given up here.
    unsafe { submit(Box::into_raw(block), start) };
}

/// What is asked of an object beside data and extended attributes.
fn submit_read(object: &CStr, ask: &ReadOp, block: Box<InFlight>) {
    let link = Arc::clone(&block.link);
    // SAFETY: no arguments.
    let op = unsafe { ffi::rados_create_read_op() };
    assert!(!op.is_null(), "librados has no memory for a read operation");
    // From here on only raw places within the block: librados keeps them until the callback.
    let raw: *mut InFlight = Box::into_raw(block);
    // SAFETY: the places lie in the block, which stays where it is until the callback; the
    // strings and arrays are copied during the calls.
    unsafe {
        let results = (&raw mut (*raw).results).cast::<c_int>();
        if let Some(version) = ask.version {
            ffi::rados_read_op_assert_version(op, version);
        }
        if ask.stat {
            let (size, time) = (&raw mut (*raw).size, &raw mut (*raw).modified);
            ffi::rados_read_op_stat(op, size, time, results);
        }
        let (iter, rest) = (&raw mut (*raw).omap, &raw mut (*raw).omap_more);
        match &ask.omap {
            None => {}
            Some(Omap::Range { after, prefix, max }) => more::rados_read_op_omap_get_vals2(
                op,
                after.as_ptr(),
                prefix.as_ptr(),
                *max,
                iter,
                rest,
                results.add(1),
            ),
            Some(Omap::Key(key)) => {
                let (keys, lens) = ([key.as_ptr().cast::<c_char>()], [key.len()]);
                more::rados_read_op_omap_get_vals_by_keys2(
                    op,
                    keys.as_ptr(),
                    1,
                    lens.as_ptr(),
                    iter,
                    results.add(1),
                );
            }
        }
    }
    let name = object.as_ptr();
    let start = |completion| {
        // SAFETY: op, link and completion are alive; librados copies the name and the op.
        unsafe { ffi::rados_aio_read_op_operate(op, link.io, completion, name, 0) }
    };
    // SAFETY: the block was given up above.
    unsafe { submit(raw, start) };
    // SAFETY: created above and released once; librados keeps what was submitted.
    unsafe { ffi::rados_release_read_op(op) };
}
