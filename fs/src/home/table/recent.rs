//! Rows that the tables were given a short while ago, as they were given.
//!
//! A commit asks for the records of the chunks that it frees, and often wrote them itself some
//! seconds before. Through memtables and tables of SlateDB such a row costs some microseconds.
//!
//! What always holds: a row that is here is what the tables would answer. There is one writer,
//! which takes rows out before it gives the tables others, and puts those in when the tables have
//! them; nothing that was read is put in. Values are copies: what the tables are given lies
//! together with its whole batch.

use bytes::Bytes;
use parking_lot::Mutex;

use super::Change;
use crate::home::key::{self, Key};
use crate::home::maps::HashMap;

/// What a row costs in memory besides its value.
const ROW_BYTES: usize = 128;

/// Rows of all tables of a process.
#[derive(Debug)]
pub struct Recent {
    /// Of each of the two generations.
    bytes_max: usize,
    generations: Mutex<Generations>,
}

/// Rows go into the young generation; when that is full it becomes the old one, and the old one
/// goes.
#[derive(Debug, Default)]
struct Generations {
    young: Rows,
    young_bytes: usize,
    old: Rows,
}

type Rows = HashMap<(u64, Key), Option<Box<[u8]>>>;

impl Recent {
    /// For `bytes` in all.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let bytes_max = usize::try_from(bytes / 2).unwrap_or(usize::MAX);
        Self { bytes_max, generations: Mutex::default() }
    }

    /// What `table` was given for `key`: a value, or that there is none. `None`: not known here.
    #[must_use]
    pub fn get(&self, table: u64, key: &[u8]) -> Option<Option<Bytes>> {
        if !is_kept(key) {
            return None;
        }
        let name = (table, Key::from_slice(key));
        let generations = self.generations.lock();
        let value = generations.young.get(&name).or_else(|| generations.old.get(&name))?;
        Some(value.as_deref().map(Bytes::copy_from_slice))
    }

    /// `table` is about to be given other rows for these keys.
    pub fn remove(&self, table: u64, changes: &[Change]) {
        let mut generations = self.generations.lock();
        for (key, _) in changes.iter().filter(|(key, _)| is_kept(key)) {
            generations.remove(&(table, Key::from_slice(key)));
        }
    }

    /// `table` has these rows.
    pub fn put(&self, table: u64, changes: &[Change]) {
        let mut generations = self.generations.lock();
        for (key, value) in changes.iter().filter(|(key, _)| is_kept(key)) {
            if value.is_none() && is_never_used_again(key) {
                continue;
            }
            if generations.young_bytes >= self.bytes_max {
                generations.old = std::mem::take(&mut generations.young);
                generations.young_bytes = 0;
            }
            let value = value.as_deref().map(Box::from);
            generations.young_bytes += cost(value.as_deref());
            generations.young.insert((table, Key::from_slice(key)), value);
        }
    }
}

impl Generations {
    fn remove(&mut self, name: &(u64, Key)) {
        if let Some(value) = self.young.remove(name) {
            self.young_bytes -= cost(value.as_deref());
        } else {
            self.old.remove(name);
        }
    }
}

fn cost(value: Option<&[u8]>) -> usize {
    ROW_BYTES + value.map_or(0, <[u8]>::len)
}

/// Rows that commits ask for again. Inodes and names stay in memory in another form.
fn is_kept(key: &[u8]) -> bool {
    matches!(key.first(), Some(&(key::CHUNK | key::HASH | key::SEGMENT)))
}

/// Chunks and segments have names of their own: nobody asks for one that is gone.
fn is_never_used_again(key: &[u8]) -> bool {
    matches!(key.first(), Some(&(key::CHUNK | key::SEGMENT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, value: Option<&'static str>) -> Change {
        (Bytes::copy_from_slice(key.as_bytes()), value.map(Bytes::from))
    }

    #[test]
    fn what_a_table_was_given_is_known_for_that_table_until_it_is_taken_out() {
        let recent = Recent::new(1 << 20);
        let gone = row("C4", None);
        let rows = [row("C1", Some("one")), row("H2", None), row("I3", Some("three")), gone];
        recent.put(1, &rows);
        assert_eq!(recent.get(1, b"C1"), Some(Some("one".into())));
        assert_eq!(recent.get(1, b"H2"), Some(None));
        assert_eq!(recent.get(1, b"C4"), None, "its name is not used again");
        assert_eq!(recent.get(1, b"I3"), None, "of inodes there are better copies");
        assert_eq!(recent.get(2, b"C1"), None, "another table's");
        recent.remove(1, &rows);
        assert_eq!((recent.get(1, b"C1"), recent.get(1, b"H2")), (None, None));
    }

    #[test]
    fn old_rows_go_and_none_comes_back_after_it_was_taken_out() {
        let recent = Recent::new(64 * ROW_BYTES as u64);
        let name = |n: usize| format!("H{n:03}");
        let all: Vec<_> = (0..200).map(|n| row(&name(n), None)).collect();
        recent.put(1, &all);
        let known = || (0..200).filter(|n| recent.get(1, name(*n).as_bytes()).is_some()).count();
        assert!((32..=64).contains(&known()), "{}", known());
        assert!(recent.get(1, name(199).as_bytes()).is_some());
        recent.remove(1, &all);
        assert_eq!((known(), recent.generations.lock().young_bytes), (0, 0));
    }
}
