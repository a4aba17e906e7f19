//! POSIX.1e access control lists: their form as extended attributes and what they do to modes.
//!
//! What always holds: an [`Acl`] is valid, as `posix_acl_valid` of Linux judges it (one owner,
//! group and other entry each, in order, and a mask where there are named entries); serialising
//! and parsing give it back unchanged. The rules are those of POSIX 1003.1e draft 17 as Linux
//! applies them (`fs/posix_acl.c`), since the kernel evaluates what is stored here.
//!
//! Pure. Who may set an ACL, and that only directories have a default one, is checked elsewhere;
//! permission checks are the kernel's.
//!
//! The extended attribute, little-endian: version (4 bytes, 2), then per entry tag (2), permission
//! (2, `rwx` as 4 2 1) and uid or gid (4, all ones where the tag needs none).
use super::error::{ErrorKind, Result};

/// Name of the attribute that holds the ACL of an inode.
pub const ACCESS_NAME: &str = "system.posix_acl_access";
/// Name of the attribute that holds the ACL which new entries of a directory inherit.
pub const DEFAULT_NAME: &str = "system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// The id of an entry that names nobody.
const ID_UNDEFINED: u32 = u32::MAX;

/// Whom an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The owner of the inode.
    Owner,
    /// The user with this uid.
    User(u32),
    /// The group of the inode.
    OwningGroup,
    /// The group with this gid.
    Group(u32),
    /// The upper limit of everybody but owner and other.
    Mask,
    /// Everybody else.
    Other,
}

impl Who {
    /// Tag and id of the attribute.
    fn to_wire(self) -> (u16, u32) {
        match self {
            Who::Owner => (0x01, ID_UNDEFINED),
            Who::User(uid) => (0x02, uid),
            Who::OwningGroup => (0x04, ID_UNDEFINED),
            Who::Group(gid) => (0x08, gid),
            Who::Mask => (0x10, ID_UNDEFINED),
            Who::Other => (0x20, ID_UNDEFINED),
        }
    }

    fn from_wire(tag: u16, id: u32) -> Option<Self> {
        match tag {
            0x01 => Some(Who::Owner),
            0x02 if id != ID_UNDEFINED => Some(Who::User(id)),
            0x04 => Some(Who::OwningGroup),
            0x08 if id != ID_UNDEFINED => Some(Who::Group(id)),
            0x10 => Some(Who::Mask),
            0x20 => Some(Who::Other),
            _ => None,
        }
    }

    /// Place in the order of entries.
    fn rank(self) -> u8 {
        match self {
            Who::Owner => 0,
            Who::User(_) => 1,
            Who::OwningGroup => 2,
            Who::Group(_) => 3,
            Who::Mask => 4,
            Who::Other => 5,
        }
    }

    fn is_named(self) -> bool {
        matches!(self, Who::User(_) | Who::Group(_))
    }
}

/// What an entry allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// Whom.
    pub who: Who,
    /// `rwx` as 4, 2, 1.
    pub perm: u8,
}

/// A valid access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<AclEntry>);

impl Acl {
    /// Takes entries that make a valid list.
    ///
    /// # Errors
    /// `Invalid` when they do not.
    pub fn new(entries: Vec<AclEntry>) -> Result<Self> {
        if is_valid(&entries) { Ok(Self(entries)) } else { Err(ErrorKind::Invalid.into()) }
    }

    /// Parses the value of an attribute. One without entries is `Invalid`, too: Linux takes it
    /// for a removal, and asks for that.
    ///
    /// # Errors
    /// `NotSupported` for another version, `Invalid` for what is no ACL.
    pub fn parse(value: &[u8]) -> Result<Self> {
        let (version, entries) =
            value.split_first_chunk::<HEADER_BYTES>().ok_or(ErrorKind::Invalid)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(ErrorKind::NotSupported.into());
        }
        let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(ErrorKind::Invalid.into());
        }
        let entries = entries.iter().map(parse_entry).collect::<Option<Vec<_>>>();
        Self::new(entries.ok_or(ErrorKind::Invalid)?)
    }

    /// The value of the attribute.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(HEADER_BYTES + self.0.len() * ENTRY_BYTES);
        value.extend_from_slice(&VERSION.to_le_bytes());
        for entry in &self.0 {
            let (tag, id) = entry.who.to_wire();
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&u16::from(entry.perm).to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    #[cfg(test)]
    fn entries(&self) -> &[AclEntry] {
        &self.0
    }

    /// The permission bits (`0o777`) that `stat` shows of an inode with this ACL: the group's
    /// are those of the mask where there is one.
    #[must_use]
    pub fn mode(&self) -> u16 {
        self.perm_of(Who::Owner) << 6
            | self.perm_of(self.group_class()) << 3
            | self.perm_of(Who::Other)
    }

    /// Do the permission bits say all of it? Then the ACL need not be stored.
    #[must_use]
    pub fn is_minimal(&self) -> bool {
        self.0.iter().all(|entry| !entry.who.is_named() && entry.who != Who::Mask)
    }

    /// What `chmod` to the permission bits `perm` makes of the ACL: owner and other, and the mask
    /// or, without one, the owning group.
    pub fn set_mode(&mut self, perm: u16) {
        let group = self.group_class();
        self.set_perm(Who::Owner, perm >> 6);
        self.set_perm(group, perm >> 3);
        self.set_perm(Who::Other, perm);
    }

    /// What a new inode gets in a directory whose default ACL this is, when `requested_perm` (with
    /// set-uid, set-gid and sticky, which stay) was asked for, without any umask: its permission
    /// bits, and its access ACL unless the bits say it all. A new directory gets the default
    /// ACL as its own default, too.
    #[must_use]
    pub fn inherit(&self, requested_perm: u16) -> (u16, Option<Acl>) {
        let mut access = self.clone();
        access.set_mode(self.mode() & requested_perm);
        let perm = requested_perm & !0o777 | access.mode();
        let stored = (!access.is_minimal()).then_some(access);
        (perm, stored)
    }

    /// The entry that the group bits of the mode stand for.
    fn group_class(&self) -> Who {
        let masked = self.0.iter().any(|entry| entry.who == Who::Mask);
        if masked { Who::Mask } else { Who::OwningGroup }
    }

    fn perm_of(&self, who: Who) -> u16 {
        self.0.iter().find(|entry| entry.who == who).map_or(0, |entry| u16::from(entry.perm))
    }

    fn set_perm(&mut self, who: Who, perm: u16) {
        for entry in self.0.iter_mut().filter(|entry| entry.who == who) {
            entry.perm = (perm & 0o7) as u8;
        }
    }
}

fn parse_entry(bytes: &[u8; ENTRY_BYTES]) -> Option<AclEntry> {
    let [t0, t1, p0, p1, id @ ..] = *bytes;
    let who = Who::from_wire(u16::from_le_bytes([t0, t1]), u32::from_le_bytes(id))?;
    Some(AclEntry { who, perm: u8::try_from(u16::from_le_bytes([p0, p1])).ok()? })
}

/// `posix_acl_valid`: like Linux it lets a user or group be named twice (the first entry counts).
fn is_valid(entries: &[AclEntry]) -> bool {
    let count = |who| entries.iter().filter(|entry| entry.who == who).count();
    let masks_min = usize::from(entries.iter().any(|entry| entry.who.is_named()));
    entries.is_sorted_by_key(|entry| entry.who.rank())
        && entries.iter().all(|entry| entry.perm <= 0o7)
        && [Who::Owner, Who::OwningGroup, Who::Other].iter().all(|who| count(*who) == 1)
        && (masks_min..=1).contains(&count(Who::Mask))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::error::Error;
    use Who::{Group, Mask, Other, Owner, OwningGroup, User};
    use proptest::prelude::*;

    fn list(entries: &[(Who, u8)]) -> Vec<AclEntry> {
        entries.iter().map(|(who, perm)| AclEntry { who: *who, perm: *perm }).collect()
    }

    fn acl(entries: &[(Who, u8)]) -> Acl {
        Acl::new(list(entries)).expect("valid")
    }

    fn named() -> Acl {
        acl(&[
            (Owner, 7),
            (User(1000), 6),
            (OwningGroup, 5),
            (Group(100), 4),
            (Mask, 6),
            (Other, 1),
        ])
    }

    #[test]
    fn the_attribute_has_the_bytes_that_linux_takes_and_gives() {
        let value = [
            &[2, 0, 0, 0][..],
            &[1, 0, 6, 0, 255, 255, 255, 255],
            &[2, 0, 6, 0, 0xe8, 3, 0, 0],
            &[4, 0, 4, 0, 255, 255, 255, 255],
            &[0x10, 0, 6, 0, 255, 255, 255, 255],
            &[0x20, 0, 4, 0, 255, 255, 255, 255],
        ]
        .concat();
        let parsed = Acl::parse(&value).expect("valid");
        let expected = acl(&[(Owner, 6), (User(1000), 6), (OwningGroup, 4), (Mask, 6), (Other, 4)]);
        assert_eq!(parsed, expected);
        assert_eq!(parsed.to_bytes(), value);
    }

    #[test]
    fn a_value_without_entries_is_no_acl() {
        for empty in [&[][..], &[2, 0, 0, 0]] {
            assert!(matches!(Acl::parse(empty), Err(Error(ErrorKind::Invalid))));
        }
    }

    #[test]
    fn values_that_are_no_acl_are_refused() {
        let good = named().to_bytes();
        for cut in [1, 3, 5, good.len() - 1, good.len() - ENTRY_BYTES] {
            assert!(matches!(Acl::parse(&good[..cut]), Err(Error(ErrorKind::Invalid))), "{cut}");
        }
        let mut version = good.clone();
        version[0] = 1;
        assert!(matches!(Acl::parse(&version), Err(Error(ErrorKind::NotSupported))));
        for (at, byte) in [(4, 3), (6, 8), (7, 1)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(matches!(Acl::parse(&bad), Err(Error(ErrorKind::Invalid))), "byte {at}");
        }
        let mut nobody = good.clone();
        nobody[16..20].fill(255);
        assert!(matches!(Acl::parse(&nobody), Err(Error(ErrorKind::Invalid))));
    }

    #[test]
    fn incomplete_doubled_and_disordered_lists_are_refused() {
        let bad: [&[(Who, u8)]; 8] = [
            &[],
            &[(Owner, 7), (OwningGroup, 7)],
            &[(Owner, 7), (Other, 7)],
            &[(OwningGroup, 7), (Owner, 7), (Other, 7)],
            &[(Owner, 7), (Owner, 7), (OwningGroup, 7), (Other, 7)],
            &[(Owner, 7), (User(1), 7), (OwningGroup, 7), (Other, 7)],
            &[(Owner, 7), (OwningGroup, 7), (User(1), 7), (Mask, 7), (Other, 7)],
            &[(Owner, 7), (OwningGroup, 7), (Mask, 7), (Mask, 7), (Other, 7)],
        ];
        for entries in bad {
            assert!(Acl::new(list(entries)).is_err(), "{entries:?}");
        }
        // As Linux: a mask without named entries, and one user named twice, pass.
        acl(&[(Owner, 7), (OwningGroup, 7), (Mask, 5), (Other, 7)]);
        acl(&[(Owner, 7), (User(1), 1), (User(1), 2), (OwningGroup, 7), (Mask, 5), (Other, 7)]);
    }

    #[test]
    fn a_minimal_acl_is_only_a_mode_and_a_mask_shows_as_the_groups_bits() {
        let minimal = acl(&[(Owner, 6), (OwningGroup, 4), (Other, 0)]);
        assert_eq!((minimal.mode(), minimal.is_minimal()), (0o640, true));
        assert!(!named().is_minimal());
        assert_eq!(named().mode(), 0o761);
        let masked = acl(&[(Owner, 7), (OwningGroup, 7), (Mask, 5), (Other, 0)]);
        assert_eq!((masked.mode(), masked.is_minimal()), (0o750, false));
    }

    #[test]
    fn chmod_changes_the_mask_and_leaves_the_owning_group() {
        let mut changed = named();
        changed.set_mode(0o4640);
        assert_eq!(
            changed,
            acl(&[
                (Owner, 6),
                (User(1000), 6),
                (OwningGroup, 5),
                (Group(100), 4),
                (Mask, 4),
                (Other, 0)
            ])
        );
        let mut minimal = acl(&[(Owner, 6), (OwningGroup, 4), (Other, 0)]);
        minimal.set_mode(0o751);
        assert_eq!((minimal.mode(), minimal.is_minimal()), (0o751, true));
    }

    #[test]
    fn a_new_inode_gets_no_more_than_was_asked_for_and_no_more_than_the_default_gives() {
        let (perm, access) = named().inherit(0o2666);
        assert_eq!(perm, 0o2660);
        let access = access.expect("named entries remain");
        assert_eq!(access.mode(), 0o660);
        assert_eq!(access.entries()[1], AclEntry { who: User(1000), perm: 6 });
        assert_eq!(access.entries()[2], AclEntry { who: OwningGroup, perm: 5 });

        let minimal = acl(&[(Owner, 7), (OwningGroup, 5), (Other, 0)]);
        assert_eq!(minimal.inherit(0o777), (0o750, None));
        assert_eq!(minimal.inherit(0o600), (0o600, None));
    }

    fn any_acl() -> impl Strategy<Value = Acl> {
        let named = || proptest::collection::vec((0..2000_u32, 0..8_u8), 0..4);
        (named(), named(), proptest::option::of(0..8_u8), [0..8_u8, 0..8, 0..8]).prop_map(
            |(users, groups, mask, [owner, group, other])| {
                let mask = mask.or((users.len() + groups.len() > 0).then_some(7));
                let mut entries = vec![(Owner, owner)];
                entries.extend(users.iter().map(|(uid, perm)| (User(*uid), *perm)));
                entries.push((OwningGroup, group));
                entries.extend(groups.iter().map(|(gid, perm)| (Group(*gid), *perm)));
                entries.extend(mask.map(|perm| (Mask, perm)));
                entries.push((Other, other));
                acl(&entries)
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_serialized_parses_back(acl in any_acl()) {
            prop_assert_eq!(Acl::parse(&acl.to_bytes()).expect("valid"), acl);
        }

        #[test]
        fn parsing_arbitrary_bytes_never_panics(
            mut value in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            if value.len() > 4 {
                value[..4].copy_from_slice(&VERSION.to_le_bytes());
            }
            if let Ok(acl) = Acl::parse(&value) {
                prop_assert_eq!(acl.to_bytes(), value);
            }
        }

        #[test]
        fn after_chmod_the_mode_is_what_was_set(acl in any_acl(), perm in 0..0o7777_u16) {
            let mut changed = acl;
            changed.set_mode(perm);
            prop_assert_eq!(changed.mode(), perm & 0o777);
        }

        #[test]
        fn an_inherited_mode_is_the_meet_of_both(acl in any_acl(), perm in 0..0o7777_u16) {
            let (got, access) = acl.inherit(perm);
            prop_assert_eq!(got & 0o777, perm & acl.mode());
            prop_assert_eq!(got & 0o7000, perm & 0o7000);
            prop_assert_eq!(access.is_none(), acl.is_minimal());
        }
    }
}
