//! From inodes to paths, for those that a report names: each directory on the way is read once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::check::ROWS;
use super::rows::Rows;
use super::source::{Cursor, View};
use crate::home::error::Result;
use crate::home::key;
use crate::home::record::decode_bucket;
use crate::home::types::Ino;

/// Directories above one another in a path; more are a circle.
const DEPTH_MAX: usize = 4096;

/// Names and directories of the inodes that were asked for, and of all above them.
#[derive(Debug, Default)]
pub struct Paths {
    names: HashMap<u64, (u64, String)>,
}

/// Looks up the names of `inos`.
///
/// # Errors
/// What the tables say.
pub async fn name_all(
    view: &dyn View,
    rows: &Rows,
    inos: impl Iterator<Item = Ino>,
) -> Result<Paths> {
    let mut wanted: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for ino in inos {
        let mut at = ino.0;
        for _ in 0..DEPTH_MAX {
            let Some(row) = rows.inode_at(at).map(|at| &rows.inodes[at]) else { break };
            if row.seen_in == 0 || !wanted.entry(row.seen_in).or_default().insert(at) {
                break;
            }
            at = row.seen_in;
        }
    }
    let mut paths = Paths::default();
    for (dir, mut inside) in wanted {
        let range = key::range_of(key::BUCKET, Ino(dir));
        let mut cursor = Cursor::new(view, range, ROWS);
        while !inside.is_empty()
            && let Some((_, value)) = cursor.next().await?
        {
            let Ok(bucket) = decode_bucket(&value) else { continue };
            for entry in bucket {
                if inside.remove(&entry.ino.0) {
                    let name = escape(entry.name.as_bytes());
                    paths.names.insert(entry.ino.0, (dir, name));
                }
            }
        }
    }
    Ok(paths)
}

impl Paths {
    /// The path of an inode from the home's root, `#n` where a name is missing.
    #[must_use]
    pub fn of(&self, ino: Ino) -> String {
        let mut parts = Vec::new();
        let mut at = ino.0;
        while at != Ino::ROOT.0 {
            match self.names.get(&at) {
                Some((dir, name)) if parts.len() < DEPTH_MAX => {
                    parts.push(name.clone());
                    at = *dir;
                }
                _ => {
                    parts.push(Ino(at).to_string());
                    parts.reverse();
                    return parts.join("/");
                }
            }
        }
        parts.push(String::new());
        parts.reverse();
        if parts.len() == 1 { "/".to_owned() } else { parts.join("/") }
    }
}

/// A name as text: what is no text, or would break a line, is written as `\xNN`.
pub fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_text_are_written_in_hex() {
        assert_eq!(escape("naïve.txt".as_bytes()), "naïve.txt");
        assert_eq!(escape(b"a\xff\nb\\"), "a\\xff\\nb\\\\");
    }
}
