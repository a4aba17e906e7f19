//! How often inodes are referred to: what a kernel has looked up and not yet forgotten.
//!
//! A kernel with much memory keeps every inode that it ever saw, a million of a large home, so
//! one must cost little: the numbers of siblings lie together, and so do their counts here, one
//! byte each and a few more for every sixteen.

use super::maps::HashMap;
use super::types::Ino;

/// Inodes whose counts lie together.
const PAGE: usize = 16;
const PAGE_BITS: u32 = PAGE.trailing_zeros();
/// The count stands in the other map.
const LARGE: u8 = u8::MAX;

/// Counts of references by inode; those that are 0 take nothing.
#[derive(Debug, Default)]
pub struct References {
    pages: HashMap<u64, [u8; PAGE]>,
    large: HashMap<Ino, u64>,
}

impl References {
    /// Counts `count` more.
    pub fn add(&mut self, ino: Ino, count: u64) {
        if count > 0 {
            self.set(ino, self.get(ino).saturating_add(count));
        }
    }

    /// Gives `count` back; true when the inode was referred to and is no more.
    pub fn give_back(&mut self, ino: Ino, count: u64) -> bool {
        let held = self.get(ino);
        let left = held.saturating_sub(count);
        if left != held {
            self.set(ino, left);
        }
        held > 0 && left == 0
    }

    /// Whether there is any reference to the inode.
    #[must_use]
    pub fn contains(&self, ino: Ino) -> bool {
        self.get(ino) > 0
    }

    /// All inodes that are referred to, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Ino, u64)> + '_ {
        self.pages.iter().flat_map(move |(page, counts)| {
            let first = page << PAGE_BITS;
            let counted = (first..).zip(counts).filter(|(_, count)| **count > 0);
            counted.map(|(ino, _)| (Ino(ino), self.get(Ino(ino))))
        })
    }

    fn get(&self, ino: Ino) -> u64 {
        let (page, at) = place(ino);
        match self.pages.get(&page).map_or(0, |counts| counts[at]) {
            LARGE => self.large.get(&ino).copied().unwrap_or(u64::from(LARGE)),
            small => u64::from(small),
        }
    }

    fn set(&mut self, ino: Ino, count: u64) {
        let (page, at) = place(ino);
        let counts = self.pages.entry(page).or_default();
        let before = counts[at];
        counts[at] = u8::try_from(count).unwrap_or(LARGE);
        if counts[at] == LARGE {
            self.large.insert(ino, count);
        } else if before == LARGE {
            self.large.remove(&ino);
        }
        if *counts == [0; PAGE] {
            self.pages.remove(&page);
        }
        if self.pages.len() < self.pages.capacity() / 8 {
            self.pages.shrink_to_fit();
        }
    }
}

fn place(ino: Ino) -> (u64, usize) {
    // A page is smaller than any number of bits of a machine.
    (ino.0 >> PAGE_BITS, (ino.0 % PAGE as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn counts_are_those_of_a_plain_map_however_large_they_are() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let (mut counts, mut plain) = (References::default(), BTreeMap::<Ino, u64>::new());
        for _ in 0..20_000 {
            let ino = Ino(random(100) * random(3).pow(20));
            let count = random(5) * random(5) * random(40);
            if random(3) > 0 {
                counts.add(ino, count);
                *plain.entry(ino).or_default() += count;
            } else {
                let held = plain.get(&ino).copied().unwrap_or(0);
                plain.insert(ino, held.saturating_sub(count));
                assert_eq!(counts.give_back(ino, count), held > 0 && held <= count);
            }
            plain.retain(|_, count| *count > 0);
            assert_eq!(counts.contains(ino), plain.contains_key(&ino));
        }
        let mut all: Vec<_> = counts.iter().collect();
        all.sort_unstable();
        assert_eq!(all, plain.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_given_back_takes_nothing() {
        let mut counts = References::default();
        (0..100_000).for_each(|ino| counts.add(Ino(ino), 1 + ino % 300));
        assert!((0..100_000).all(|ino| counts.give_back(Ino(ino), 1 + ino % 300)));
        assert!(counts.pages.is_empty() && counts.large.is_empty());
        assert!(counts.pages.capacity() < 100, "{}", counts.pages.capacity());
    }
}
