//! How a chunk is stored: as it is, or compressed where that pays.
//!
//! What always holds: [`unpack`] gives the bytes that [`pack`] was given, verified by their hash,
//! or an error; whatever the store returns, it allocates no more than a chunk's plain length,
//! which [`CHUNK_BYTES`] bounds. Pure but for the contexts and the scratch memory of the
//! compressor, which are used again: making them anew costs more than a small chunk.

use bytes::Bytes;
use parking_lot::Mutex;
use yadokari_layers::chunk::{self, CHUNK_BYTES, ChunkHash};
use zstd::bulk::{Compressor, Decompressor};

use crate::home::error::{Error, Result};
use crate::home::mutants::{self, Mutant};

/// How a chunk's content is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Plain = 0,
    /// One zstd frame.
    Zstd = 1,
}

impl Codec {
    /// Reads the value of a record; `None` for one that this version does not know.
    #[must_use]
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Plain),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The fastest of zstd's regular levels: a home's writes wait for it.
const ZSTD_LEVEL: i32 = 1;
/// Below this the frame of zstd eats what it saves.
const COMPRESS_FROM_BYTES: usize = 64;
/// Compression pays when it saves at least one part in this many: less is not worth the
/// decompression on every cold read.
const SAVING_PARTS: usize = 16;
/// From this on a sample decides whether compression is tried at all.
const SAMPLE_FROM_BYTES: usize = 32 * 1024;
/// Size of each of the two samples, from the start and from the middle.
const SAMPLE_BYTES: usize = 4 * 1024;

/// After so many chunks in a row that compression did not make smaller, a file is taken for one
/// that is compressed already.
const MISSES_MAX: u32 = 4;
/// Of such a file one chunk in so many is tried, in case it goes on with something else.
const TRY_EVERY: u32 = 8;

/// What to expect from compressing the next chunk of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outlook {
    /// Chunks since the last one that became smaller.
    misses: u32,
}

impl Outlook {
    /// [`pack`], unless the chunks before say that it is not worth trying.
    #[must_use]
    pub fn pack(&mut self, plain: Bytes) -> (Codec, Bytes) {
        let tries = self.misses < MISSES_MAX || self.misses.is_multiple_of(TRY_EVERY);
        let (codec, stored) = if tries { pack(plain) } else { (Codec::Plain, plain) };
        self.misses = if codec == Codec::Plain { self.misses.saturating_add(1) } else { 0 };
        (codec, stored)
    }
}

struct Contexts {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    scratch: Vec<u8>,
}

/// Contexts that nobody uses at the moment. Not one for each thread: a context has about a
/// megabyte, and a runtime moves its work over a hundred threads.
static IDLE: Mutex<Vec<Contexts>> = Mutex::new(Vec::new());
/// As many as this are kept; few threads compute at once.
const IDLE_MAX: usize = 8;

/// Runs `work` with contexts that nobody else uses meanwhile.
fn with_contexts<T>(work: impl FnOnce(&mut Contexts) -> T) -> T {
    let idle = IDLE.lock().pop();
    let mut contexts = idle.unwrap_or_else(Contexts::new);
    let done = work(&mut contexts);
    let mut idle = IDLE.lock();
    if idle.len() < IDLE_MAX {
        idle.push(contexts);
    }
    done
}

impl Contexts {
    fn new() -> Self {
        Self {
            compressor: Compressor::new(ZSTD_LEVEL)
                .expect("level 1 exists; memory is all it takes"),
            decompressor: Decompressor::new().expect("a context takes nothing but memory"),
            scratch: Vec::new(),
        }
    }

    /// Compresses into the scratch memory; `true` when that saved enough.
    fn compress(&mut self, plain: &[u8]) -> bool {
        let len_max = plain.len() - plain.len() / SAVING_PARTS;
        self.scratch.clear();
        self.scratch.reserve(len_max);
        // The buffer may hold more than `len_max` bytes from an earlier chunk.
        self.compressor.compress_to_buffer(plain, &mut self.scratch).is_ok_and(|len| len <= len_max)
    }

    /// Do samples of a big chunk promise anything?
    fn promises(&mut self, plain: &[u8]) -> bool {
        let middle = plain.len() / 2;
        self.compress(&plain[..SAMPLE_BYTES]) || self.compress(&plain[middle..][..SAMPLE_BYTES])
    }
}

/// The form in which the content `plain` is stored: compressed if that pays, else `plain` itself.
#[must_use]
pub(super) fn pack(plain: Bytes) -> (Codec, Bytes) {
    if plain.len() < COMPRESS_FROM_BYTES {
        return (Codec::Plain, plain);
    }
    with_contexts(|contexts| {
        if plain.len() >= SAMPLE_FROM_BYTES && !contexts.promises(&plain) {
            return (Codec::Plain, plain);
        }
        if contexts.compress(&plain) {
            (Codec::Zstd, Bytes::copy_from_slice(&contexts.scratch))
        } else {
            (Codec::Plain, plain)
        }
    })
}

/// The content of a chunk that is stored as `stored`.
///
/// # Errors
/// `Corrupt` when it is not the content of `plain_len` bytes that `hash` names.
pub fn unpack(codec: Codec, stored: Bytes, plain_len: u32, hash: &ChunkHash) -> Result<Bytes> {
    if u64::from(plain_len) > CHUNK_BYTES {
        return Err(Error::corrupt(format_args!("chunk {hash} with a length of {plain_len}")));
    }
    let plain = match codec {
        Codec::Plain => stored,
        Codec::Zstd => decompress(&stored, plain_len as usize, hash)?,
    };
    if plain.len() != plain_len as usize {
        let len = plain.len();
        return Err(Error::corrupt(format_args!(
            "chunk {hash} has {len} bytes instead of {plain_len}"
        )));
    }
    let found = chunk::hash(&plain);
    if found != *hash && !mutants::is(Mutant::SkipChecksum) {
        return Err(Error::corrupt(format_args!("chunk {hash} reads as {found}")));
    }
    Ok(plain)
}

fn decompress(stored: &[u8], plain_len: usize, hash: &ChunkHash) -> Result<Bytes> {
    let mut plain = Vec::with_capacity(plain_len);
    with_contexts(|contexts| contexts.decompressor.decompress_to_buffer(stored, &mut plain))
        .map_err(|error| {
            Error::corrupt(format_args!("chunk {hash} does not decompress: {error}"))
        })?;
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::error::ErrorKind;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        rand::rngs::StdRng::seed_from_u64(7).fill_bytes(&mut bytes);
        bytes
    }

    fn is_corrupt(result: Result<Bytes>) -> bool {
        matches!(result, Err(Error(ErrorKind::Corrupt(_))))
    }

    #[test]
    fn noise_and_tiny_content_are_stored_as_they_are_without_a_copy() {
        for len in [0, 1, 63, 64, 4096, SAMPLE_FROM_BYTES, CHUNK_BYTES as usize] {
            let plain = Bytes::from(noise(len));
            let (codec, stored) = pack(plain.clone());
            assert_eq!((codec, stored.as_ptr()), (Codec::Plain, plain.as_ptr()), "{len}");
        }
    }

    #[test]
    fn a_big_chunk_that_begins_with_noise_is_compressed_if_its_middle_promises_it() {
        let mut plain = vec![b'x'; CHUNK_BYTES as usize];
        plain[..8192].copy_from_slice(&noise(8192));
        assert_eq!(pack(plain.into()).0, Codec::Zstd);
    }

    #[test]
    fn content_that_saves_less_than_a_sixteenth_stays_plain() {
        let mut plain = noise(16_000);
        plain[..900].fill(0);
        assert_eq!(pack(plain.clone().into()).0, Codec::Plain);
        plain[..2000].fill(0);
        assert_eq!(pack(plain.into()).0, Codec::Zstd);
    }

    #[test]
    fn of_a_file_that_does_not_compress_only_some_chunks_are_tried() {
        let mut outlook = Outlook::default();
        let (noise, text) = (Bytes::from(noise(4096)), Bytes::from(vec![b'x'; 4096]));
        let mut codecs = |plain: &Bytes, n: usize| -> Vec<Codec> {
            (0..n).map(|_| outlook.pack(plain.clone()).0).collect()
        };
        assert_eq!(codecs(&text, 3), [Codec::Zstd; 3]);
        assert_eq!(codecs(&noise, 5), [Codec::Plain; 5]);
        // Taken for noise, until one of them is tried; from then on all are.
        assert_eq!(codecs(&text, 3), [Codec::Plain; 3]);
        assert_eq!(codecs(&text, 3), [Codec::Zstd; 3]);
    }

    #[test]
    fn damage_is_found_whatever_the_codec() {
        let text = Bytes::from(b"all work and no play ".repeat(100));
        let hash = chunk::hash(&text);
        let len = text.len() as u32;
        let (codec, stored) = pack(text.clone());
        assert_eq!(codec, Codec::Zstd);
        for at in 0..stored.len() {
            let mut bad = stored.to_vec();
            bad[at] ^= 0x10;
            let read = unpack(codec, bad.into(), len, &hash);
            // A flipped bit may be one that zstd ignores; then the content is right all the same.
            assert!(is_corrupt(read.clone()) || read.is_ok_and(|plain| plain == text));
        }
        let mut bad = text.to_vec();
        bad[500] ^= 1;
        assert!(is_corrupt(unpack(Codec::Plain, bad.into(), len, &hash)));
        assert!(is_corrupt(unpack(Codec::Plain, text.slice(1..), len, &hash)));
        assert!(is_corrupt(unpack(codec, stored.slice(..stored.len() - 1), len, &hash)));
    }

    #[test]
    fn a_frame_that_would_unfold_to_more_than_it_should_is_corrupt_and_takes_no_memory() {
        let bomb = zstd::bulk::compress(&vec![0; 50 << 20], 1).expect("compress");
        let hash = chunk::hash(b"");
        assert!(is_corrupt(unpack(Codec::Zstd, bomb.clone().into(), 100, &hash)));
        assert!(is_corrupt(unpack(Codec::Zstd, bomb.into(), 50 << 20, &hash)));
    }

    proptest! {
        #[test]
        fn what_is_packed_unpacks(
            words in proptest::collection::vec(any::<u16>(), 0..3000), repeat in 1..20_usize,
        ) {
            let plain: Bytes = words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>()
                .repeat(repeat).into_iter().take(CHUNK_BYTES as usize).collect();
            let (codec, stored) = pack(plain.clone());
            prop_assert!(stored.len() <= plain.len());
            let read = unpack(codec, stored, plain.len() as u32, &chunk::hash(&plain));
            prop_assert_eq!(read.expect("unpack"), plain);
        }
    }
}
