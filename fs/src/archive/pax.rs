//! Pax records: what the fixed fields of a tar header cannot say. Pure.

use crate::home::Time;

/// Extended attributes.
pub const XATTR: &str = "SCHILY.xattr.";
/// ACLs.
pub const ACL_ACCESS: &str = "SCHILY.acl.access";
/// Default ACLs of directories.
pub const ACL_DEFAULT: &str = "SCHILY.acl.default";

/// Records of one header.
pub type Records = Vec<(String, Vec<u8>)>;

/// A time as a decimal number of seconds.
pub fn time_text(time: Time) -> String {
    match time {
        Time { sec, nsec: 0 } => sec.to_string(),
        // The fraction of a time before 1970 counts away from 1970.
        Time { sec, nsec } if sec < 0 => {
            format!("-{}.{:09}", -(sec + 1), 1_000_000_000 - nsec)
        }
        Time { sec, nsec } => format!("{sec}.{nsec:09}"),
    }
}

/// Reads such a number; digits beyond nanoseconds are cut off.
pub fn time_of(text: &str) -> Option<Time> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let sec: i64 = whole.parse().ok()?;
    let nanos: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nsec: u32 = nanos.parse().ok()?;
    Some(match (negative, nsec) {
        (false, nsec) => Time { sec, nsec },
        (true, 0) => Time { sec: -sec, nsec: 0 },
        (true, nsec) => Time { sec: -sec - 1, nsec: 1_000_000_000 - nsec },
    })
}

/// The name of an attribute within a record's key, which cannot hold every byte.
pub fn encode_name(name: &[u8]) -> String {
    let mut text = String::new();
    for byte in name {
        match byte {
            b'%' | b'=' | b'\n' | 0x80.. => text.push_str(&format!("%{byte:02X}")),
            byte => text.push(char::from(*byte)),
        }
    }
    text
}

/// Reads such a name.
pub fn decode_name(text: &str) -> Vec<u8> {
    let mut name = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                name.push(byte);
                rest = &behind[2..];
            }
            None => {
                name.push(*first);
                rest = behind;
            }
        }
    }
    name
}

/// The map in front of a sparse file's contents, with its padding to whole blocks.
pub fn sparse_map(parts: &[(u64, u64)], size: u64) -> Vec<u8> {
    let mut parts = parts.to_vec();
    if parts.last().is_none_or(|(at, len)| at + len < size) {
        parts.push((size, 0));
    }
    let mut map = format!("{}\n", parts.len());
    for (at, len) in parts {
        map.push_str(&format!("{at}\n{len}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(512), 0);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_as_text_before_1970_too() {
        for (sec, nsec) in [(0, 0), (1, 5), (-1, 0), (-1, 999_999_999), (-5, 1), (9_999_999_999, 7)]
        {
            let time = Time { sec, nsec };
            assert_eq!(time_of(&time_text(time)), Some(time), "{}", time_text(time));
        }
        assert_eq!(time_text(Time { sec: -1, nsec: 500_000_000 }), "-0.500000000");
        assert_eq!(time_of("1.5"), Some(Time { sec: 1, nsec: 500_000_000 }));
    }

    #[test]
    fn names_of_attributes_survive_whatever_is_in_them() {
        for name in [&b"user.a"[..], b"user.50%", b"user.a=b", b"user.\xff\n", b"user.%zz"] {
            assert_eq!(decode_name(&encode_name(name)), name);
        }
    }
}
