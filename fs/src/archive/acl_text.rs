//! ACLs as `tar` keeps them: text with numbers for users and groups.

/// Version of the attribute's value.
const VERSION: u32 = 2;
/// The id of an entry that names nobody.
const NOBODY: u32 = u32::MAX;
/// Tags of the attribute's entries, and how they are written.
const TAGS: [(u16, &str); 6] = [
    (0x01, "user"),
    (0x02, "user"),
    (0x04, "group"),
    (0x08, "group"),
    (0x10, "mask"),
    (0x20, "other"),
];

/// The text of an attribute's value; `None` for what is no ACL.
pub fn to_text(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_first_chunk()?;
    if u32::from_le_bytes(*version) != VERSION {
        return None;
    }
    let mut parts = Vec::new();
    for entry in entries.chunks(8) {
        let tag = u16::from_le_bytes(entry.get(..2)?.try_into().ok()?);
        let perm = u16::from_le_bytes(entry.get(2..4)?.try_into().ok()?);
        let id = u32::from_le_bytes(entry.get(4..8)?.try_into().ok()?);
        let name = TAGS.iter().find(|(known, _)| *known == tag)?.1;
        let id = if matches!(tag, 0x02 | 0x08) { id.to_string() } else { String::new() };
        let bit = |bit: u16, letter| if perm & bit != 0 { letter } else { '-' };
        parts.push(format!("{name}:{id}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')));
    }
    Some(parts.join(","))
}

/// The attribute's value of a text; `None` where it names somebody by name or is no ACL.
pub fn from_text(text: &str) -> Option<Vec<u8>> {
    let mut entries: Vec<(u16, u32, u16)> = Vec::new();
    for part in text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty()) {
        let mut fields = part.split('#').next()?.trim().split(':');
        let (kind, who, perm) = (fields.next()?, fields.next()?, fields.next()?);
        // Some write the number behind, for names that another system does not know.
        let number = fields.next().unwrap_or(who);
        let (tag, id) = match (kind, who.is_empty()) {
            ("user" | "u", true) => (0x01, NOBODY),
            ("user" | "u", false) => (0x02, number.parse().ok()?),
            ("group" | "g", true) => (0x04, NOBODY),
            ("group" | "g", false) => (0x08, number.parse().ok()?),
            ("mask" | "m", _) => (0x10, NOBODY),
            ("other" | "o", _) => (0x20, NOBODY),
            _ => return None,
        };
        let perm = perm.bytes().try_fold(0, |bits, letter| match letter {
            b'r' => Some(bits | 4),
            b'w' => Some(bits | 2),
            b'x' => Some(bits | 1),
            b'-' => Some(bits),
            _ => None,
        })?;
        entries.push((tag, id, perm));
    }
    entries.sort_by_key(|(tag, id, _)| (*tag, *id));
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, perm) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&u16::to_le_bytes(perm));
        value.extend_from_slice(&id.to_le_bytes());
    }
    (value.len() > 4).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_survives_as_text_and_is_read_as_others_write_it() {
        let text = "user::rw-,user:1000:r-x,group::---,group:7:rwx,mask::rwx,other::--x";
        let value = from_text(text).unwrap();
        assert_eq!(to_text(&value).unwrap(), text);
        let other = "user::rw-\nuser:ada:r-x:1000\ngroup::---\ngroup:7:rwx # seven\n\
                     mask::rwx\nother::--x\n";
        assert_eq!(from_text(other).unwrap(), value);
        assert!(from_text("user:ada:rwx").is_none());
        assert!(to_text(b"nonsense").is_none());
    }
}
