//! Writing large objects past the page cache.
//!
//! A home has what it wrote in caches of its own, the kernel's pages of the file first of all. In
//! the page cache it would be a second time, and taking pages for it, filling them and writing
//! them out costs more than half of what writing a large file takes. Data is collected in large
//! pages on its way: a disk is told of each stretch of memory, and a virtual one has its queue full
//! with a MiB of small pages. What always holds: the file is the same, whichever way it was
//! written; a file system that cannot is written to as usual.
//!
//! Reading goes through the page cache: virtual disks answer the kernel's own long reads faster
//! than direct ones, which are cut where the pages of a buffer do not lie together.

use super::write::write_slices;
use memmap2::{Advice, MmapMut};
use object_store::PutPayload;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// Objects from this size on: smaller ones are written faster as usual.
const BYTES_MIN: usize = 1 << 20;
/// A large page on most processors.
const LARGE_PAGE_BYTES: usize = 2 << 20;
/// Bytes that are collected for one call.
const BUFFER_BYTES: usize = LARGE_PAGE_BYTES;
/// Where data must begin, in memory and in the file, on all usual disks.
const ALIGN: usize = 4096;
/// Buffers that are kept for the next object; puts of one home are three at a time.
const BUFFERS_KEPT: usize = 3;

/// Buffers of one store.
#[derive(Debug, Default)]
pub(super) struct Direct {
    buffers: Mutex<Vec<Buffer>>,
}

impl Direct {
    /// Writes all of `payload` at the start of an empty file, and leaves its cursor behind it.
    pub(super) fn write(&self, file: &mut File, payload: &PutPayload) -> io::Result<()> {
        let length = payload.content_length();
        let buffer = match length < BYTES_MIN {
            true => None,
            false => self.buffers.lock().pop().or_else(|| Buffer::new().ok()),
        };
        let Some(mut buffer) = buffer.filter(|_| set_direct(file, true)) else {
            return write_slices(file, rest_of(payload, 0));
        };
        let written = write_aligned(file, payload, length - length % ALIGN, &mut buffer);
        let mut buffers = self.buffers.lock();
        if buffers.len() < BUFFERS_KEPT {
            buffers.push(buffer);
        }
        drop(buffers);
        // What is left, and all that comes behind it, ends within a block.
        if !set_direct(file, false) {
            return Err(io::Error::other("direct writing cannot be ended"));
        }
        let written = written?;
        file.seek(SeekFrom::Start(written as u64))?;
        write_slices(file, rest_of(payload, written))
    }
}

/// Writes the first `end` bytes; gives how many of them are there: fewer where the file system
/// needs more than is known of it here.
fn write_aligned(
    file: &File,
    payload: &PutPayload,
    end: usize,
    buffer: &mut Buffer,
) -> io::Result<usize> {
    let (mut done, mut filled) = (0, 0);
    let aligned = buffer.aligned();
    for mut chunk in payload.iter().map(|chunk| &chunk[..]) {
        while !chunk.is_empty() && done + filled < end {
            let room = BUFFER_BYTES.min(end - done) - filled;
            let (now, later) = chunk.split_at(room.min(chunk.len()));
            aligned[filled..filled + now.len()].copy_from_slice(now);
            filled += now.len();
            chunk = later;
            if now.len() < room {
                continue;
            }
            match file.write_all_at(&aligned[..filled], done as u64) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(done),
                result => result?,
            }
            done += filled;
            filled = 0;
        }
    }
    Ok(done)
}

/// What of a payload lies behind its first `skip` bytes.
fn rest_of(payload: &PutPayload, mut skip: usize) -> Vec<IoSlice<'_>> {
    let mut rest = Vec::with_capacity(payload.as_ref().len());
    for chunk in payload.iter() {
        let from = skip.min(chunk.len());
        skip -= from;
        if from < chunk.len() {
            rest.push(IoSlice::new(&chunk[from..]));
        }
    }
    rest
}

/// Whether the file is written past the page cache from here on, or not any more, as asked.
fn set_direct(file: &File, direct: bool) -> bool {
    let Ok(flags) = rustix::fs::fcntl_getfl(file) else { return false };
    let wanted = if direct { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
    rustix::fs::fcntl_setfl(file, wanted).is_ok()
}

/// Room for [`BUFFER_BYTES`] in a large page, where the kernel has one: memory that lies together
/// goes to the disk in a few pieces instead of one for each 4 KiB.
#[derive(Debug)]
struct Buffer {
    memory: MmapMut,
    from: usize,
}

impl Buffer {
    fn new() -> io::Result<Self> {
        // Addresses only: what is not written to takes no memory.
        let memory = MmapMut::map_anon(LARGE_PAGE_BYTES + BUFFER_BYTES)?;
        let from = memory.as_ptr().align_offset(LARGE_PAGE_BYTES);
        // A kernel without them gives small ones.
        let _refused = memory.advise_range(Advice::HugePage, from, BUFFER_BYTES);
        Ok(Self { memory, from })
    }

    fn aligned(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..][..BUFFER_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::io::{Read, Write};

    #[test]
    fn a_file_holds_what_was_put_whatever_its_pieces_are() {
        let directory = tempfile::tempdir_in(".").expect("a directory on a disk");
        let direct = Direct::default();
        for (number, pieces) in [
            vec![],
            vec![10],
            vec![BYTES_MIN],
            vec![BYTES_MIN - 1, 1],
            vec![32, BYTES_MIN, 4095],
            vec![1, BUFFER_BYTES * 3, 0, ALIGN, 77, BUFFER_BYTES],
            vec![BUFFER_BYTES * 2 + 1],
        ]
        .into_iter()
        .enumerate()
        {
            let path = directory.path().join(number.to_string());
            let mut file = File::create_new(&path).expect("a new file");
            let mut next = 0_u8;
            let payload: PutPayload = pieces
                .iter()
                .map(|len| {
                    next += 1;
                    (0..*len).map(|at| (at / 13) as u8 ^ next).collect::<Bytes>()
                })
                .collect();
            direct.write(&mut file, &payload).expect("written");
            file.write_all(b"end").expect("the cursor is behind it");
            file.sync_data().expect("synced");
            let mut read = Vec::new();
            File::open(&path).and_then(|mut file| file.read_to_end(&mut read)).expect("read");
            let mut wanted = Vec::from(Bytes::from(payload));
            wanted.extend_from_slice(b"end");
            assert!(read == wanted, "pieces of {pieces:?}");
        }
        assert!(direct.buffers.lock().len() == 1);
    }
}
