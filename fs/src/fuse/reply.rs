//! The answer to one request: sent exactly once, from whatever thread has it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use zerocopy::{Immutable, IntoBytes};

use super::abi::{AttrOut, CreateOut, EntryOut, OpenOut, WriteOut};
use super::attr::attr;
use super::device::Device;
use crate::view::Node;

/// Inode numbers are never used again, so that every number has one generation.
const GENERATION: u64 = 0;

/// The answer that a request waits for. One that is dropped without a word says EIO, so that
/// nobody waits for ever.
#[derive(Debug)]
pub struct Reply {
    device: Arc<Device>,
    unique: u64,
    sent: bool,
}

impl Reply {
    /// To the request that the kernel calls `unique`.
    pub fn new(device: Arc<Device>, unique: u64) -> Self {
        Self { device, unique, sent: false }
    }

    fn send(mut self, error: i32, pieces: &[&[u8]]) {
        self.sent = true;
        self.device.note_done();
        log(self.device.send(self.unique, error, pieces));
    }

    /// Nothing is to be said: a request that the kernel waits for no answer to.
    pub fn none(mut self) {
        self.sent = true;
        self.device.note_done();
    }

    /// It failed.
    pub fn error(self, errno: i32) {
        self.send(-errno, &[]);
    }

    /// It is done.
    pub fn ok(self) {
        self.send(0, &[]);
    }

    /// A structure of the protocol.
    pub fn body(self, body: &(impl IntoBytes + Immutable)) {
        self.send(0, &[body.as_bytes()]);
    }

    /// Bytes as they are.
    pub fn bytes(self, bytes: &[u8]) {
        self.send(0, &[bytes]);
    }

    /// Bytes that lie in several places, one after the other.
    pub fn pieces(self, pieces: &[Bytes]) {
        let pieces: smallvec::SmallVec<[&[u8]; 4]> =
            pieces.iter().map(|piece| &piece[..]).collect();
        self.send(0, &pieces);
    }

    /// An inode that was looked up or made.
    pub fn entry(self, node: &Node) {
        self.body(&entry_out(node));
    }

    /// A name that is not there, which the kernel may remember for `ttl`.
    pub fn absent(self, ttl: Duration) {
        let (entry_valid, entry_valid_nsec) = (ttl.as_secs(), ttl.subsec_nanos());
        self.body(&EntryOut { entry_valid, entry_valid_nsec, ..EntryOut::default() });
    }

    /// Attributes of an inode.
    pub fn attr(self, node: &Node) {
        let ttl = node.attr_ttl;
        self.body(&AttrOut {
            attr_valid: ttl.as_secs(),
            attr_valid_nsec: ttl.subsec_nanos(),
            reserved: 0,
            attr: attr(node),
        });
    }

    /// A file that was opened.
    pub fn opened(self, fh: u64, open_flags: u32) {
        self.body(&OpenOut { fh, open_flags, backing_id: 0 });
    }

    /// A file that was made and opened.
    pub fn created(self, node: &Node, fh: u64, open_flags: u32) {
        let open = OpenOut { fh, open_flags, backing_id: 0 };
        self.body(&CreateOut { entry: entry_out(node), open });
    }

    /// So many bytes were taken.
    pub fn written(self, size: u32) {
        self.body(&WriteOut { size, reserved: 0 });
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.sent {
            log(self.device.send(self.unique, -libc::EIO, &[]));
        }
    }
}

/// An inode with how long it may be remembered.
pub fn entry_out(node: &Node) -> EntryOut {
    EntryOut {
        nodeid: node.number,
        generation: GENERATION,
        entry_valid: node.name_ttl.as_secs(),
        attr_valid: node.attr_ttl.as_secs(),
        entry_valid_nsec: node.name_ttl.subsec_nanos(),
        attr_valid_nsec: node.attr_ttl.subsec_nanos(),
        attr: attr(node),
    }
}

/// A request that was interrupted, or whose mount is gone, has nobody who hears the answer.
fn log(sent: io::Result<()>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "nobody waits for this answer");
    }
}
