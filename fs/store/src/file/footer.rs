//! The form of an object's file: the data, its attributes, a footer of fixed length.
//!
//! ```text
//! data │ attributes │ footer:
//!   0  length of the attributes      u32
//!   4  zero                          u32
//!   8  length of the data            u64
//!  16  ETag: instance, count         u64, u64
//!  32  zero                          8 bytes
//!  40  checksum                      16 bytes, BLAKE3 of attributes and footer bytes 0..40
//!  56  magic                         "YADOBJ1\n"
//! ```
//!
//! Numbers are little-endian. The data begins at offset 0, so reads of it stay aligned and the
//! file can be looked at with any tool. Attributes and ETag travel in the file and not in its
//! extended attributes or timestamps: a copy of the directory is a copy of the store, any file
//! system will do, and two versions within one tick of the clock differ. The checksum covers what
//! is written here; the data carries the checksums of whoever wrote it.

use object_store::Attributes;

pub(super) const FOOTER_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"YADOBJ1\n";
const SEALED: usize = 40;

/// Identifies one version of an object for ever: who wrote it, and the how-manyeth it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) instance: u64,
    pub(super) count: u64,
}

impl Tag {
    pub(super) fn e_tag(self) -> String {
        format!("{:016x}-{:x}", self.instance, self.count)
    }
}

/// What a footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) attributes_bytes: u32,
    pub(super) data_bytes: u64,
    pub(super) tag: Tag,
}

impl Footer {
    /// Length of the whole file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.data_bytes + u64::from(self.attributes_bytes) + FOOTER_BYTES as u64
    }
}

/// Attributes and footer, as they follow the data.
pub(super) fn encode(attributes: &[u8], data_bytes: u64, tag: Tag) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(attributes.len() + FOOTER_BYTES);
    out.extend_from_slice(attributes);
    out.extend_from_slice(&u32::try_from(attributes.len()).ok()?.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&data_bytes.to_le_bytes());
    out.extend_from_slice(&tag.instance.to_le_bytes());
    out.extend_from_slice(&tag.count.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    let checksum = blake3::hash(&out);
    out.extend_from_slice(&checksum.as_bytes()[..16]);
    out.extend_from_slice(MAGIC);
    Some(out)
}

/// Reads the end of a file without verifying it: enough to know how much of it is needed.
pub(super) fn parse(tail: &[u8], file_bytes: u64) -> Result<Footer, &'static str> {
    let Some(footer) = tail.last_chunk::<FOOTER_BYTES>() else {
        return Err("shorter than a footer");
    };
    if &footer[56..] != MAGIC {
        return Err("no object of this store: its end is missing or foreign");
    }
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&footer[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let parsed = Footer {
        attributes_bytes: number(0) as u32,
        data_bytes: number(8),
        tag: Tag { instance: number(16), count: number(24) },
    };
    if parsed.data_bytes > file_bytes || parsed.file_bytes() != file_bytes {
        return Err("its length does not match its footer");
    }
    Ok(parsed)
}

/// Verifies a tail that holds attributes and footer, and decodes the attributes.
pub(super) fn verify(tail: &[u8], footer: &Footer) -> Result<Attributes, &'static str> {
    let whole = footer.attributes_bytes as usize + FOOTER_BYTES;
    let Some(start) = tail.len().checked_sub(whole) else {
        return Err("its attributes are cut off");
    };
    let tail = &tail[start..];
    let sealed = tail.len() - FOOTER_BYTES + SEALED;
    if blake3::hash(&tail[..sealed]).as_bytes()[..16] != tail[sealed..sealed + 16] {
        return Err("the checksum of its footer does not match");
    }
    crate::attrs::decode(&tail[..footer.attributes_bytes as usize])
        .ok_or("its attributes cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_reads_back_and_any_changed_byte_is_noticed() {
        let tag = Tag { instance: 7, count: 9 };
        let attributes = crate::attrs::encode(&Attributes::new()).expect("fits");
        let mut file = b"data".to_vec();
        file.extend(encode(&attributes, 4, tag).expect("fits"));
        let length = file.len() as u64;
        let footer = parse(&file, length).expect("parses");
        assert_eq!((footer.data_bytes, footer.tag), (4, tag));
        assert!(verify(&file, &footer).is_ok());
        for at in 4..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 1;
            let read = parse(&bad, length).and_then(|footer| verify(&bad, &footer));
            assert!(read.is_err(), "byte {at}");
        }
        assert!(parse(&file[..file.len() - 1], length - 1).is_err());
    }
}
