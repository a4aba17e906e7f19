//! POSIX.1e access control lists in the format of the kernel's extended attributes. Pure.

use super::error::{Error, ErrorKind};

/// The attribute that holds a file's access ACL.
pub const ACCESS_NAME: &str = "system.posix_acl_access";
/// The attribute that holds a directory's default ACL.
pub const DEFAULT_NAME: &str = "system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NO_ID: u32 = u32::MAX;

/// An ACL that is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    entries: Vec<(u16, u16, u32)>,
}

impl Acl {
    /// Reads and checks the attribute's value.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let bad = || Error::from(ErrorKind::Invalid);
        let (version, rest) = bytes.split_first_chunk::<4>().ok_or_else(bad)?;
        if u32::from_le_bytes(*version) != VERSION || rest.len() % 8 != 0 {
            return Err(bad());
        }
        let entries: Vec<_> = rest
            .chunks_exact(8)
            .map(|e| {
                (
                    u16::from_le_bytes([e[0], e[1]]),
                    u16::from_le_bytes([e[2], e[3]]),
                    u32::from_le_bytes([e[4], e[5], e[6], e[7]]),
                )
            })
            .collect();
        let acl = Self { entries };
        if acl.is_valid() { Ok(acl) } else { Err(bad()) }
    }

    fn is_valid(&self) -> bool {
        let count = |tag| self.entries.iter().filter(|e| e.0 == tag).count();
        let known = USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER;
        let named = count(USER) + count(GROUP) > 0;
        self.entries.iter().all(|(tag, perm, _)| *perm <= 7 && tag & known == *tag)
            && count(USER_OBJ) == 1
            && count(GROUP_OBJ) == 1
            && count(OTHER) == 1
            && count(MASK) <= 1
            && (!named || count(MASK) == 1)
    }

    fn find(&self, tag: u16) -> Option<u16> {
        self.entries.iter().find(|e| e.0 == tag).map(|e| e.1)
    }

    fn set(&mut self, tag: u16, perm: u16) {
        for entry in self.entries.iter_mut().filter(|e| e.0 == tag) {
            entry.1 = perm;
        }
    }

    /// The permission bits that say the same, `0o777`.
    #[must_use]
    pub fn mode(&self) -> u16 {
        let group = self.find(MASK).or(self.find(GROUP_OBJ)).unwrap_or(0);
        self.find(USER_OBJ).unwrap_or(0) << 6 | group << 3 | self.find(OTHER).unwrap_or(0)
    }

    /// True when permission bits say all of it.
    #[must_use]
    pub fn is_minimal(&self) -> bool {
        self.entries.len() == 3
    }

    /// Follows new permission bits.
    pub fn set_mode(&mut self, perm: u16) {
        self.set(USER_OBJ, perm >> 6 & 7);
        let group = if self.find(MASK).is_some() { MASK } else { GROUP_OBJ };
        self.set(group, perm >> 3 & 7);
        self.set(OTHER, perm & 7);
    }

    /// What a new inode gets from this default ACL: permission bits, and an access ACL where
    /// they do not say all.
    #[must_use]
    pub fn inherit(&self, requested: u16) -> (u16, Option<Acl>) {
        let mut access = self.clone();
        access.set_mode(self.mode() & requested);
        let perm = requested & 0o7000 | access.mode();
        let access = (!access.is_minimal()).then_some(access);
        (perm, access)
    }

    /// The attribute's value.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, perm, id) in &self.entries {
            let id = if matches!(*tag, USER | GROUP) { *id } else { NO_ID };
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&perm.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }
}
