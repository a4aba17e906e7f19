//! The contents of a file, byte by byte: each is a hole, reserved or data.
//!
//! Naive on purpose: pages of bytes with a state for each, no extents, no sharing rules. Pages
//! are counted, so that a copy of a whole file costs little.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

const PAGE: u64 = 4096;
const LEN: usize = 4096;

/// What a byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Is {
    Hole = 0,
    Reserved = 1,
    Data = 2,
}

#[derive(Clone, PartialEq, Eq)]
struct Page {
    bytes: [u8; LEN],
    is: [u8; LEN],
}

/// The contents of one file, without its size.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Contents {
    pages: BTreeMap<u64, Arc<Page>>,
}

fn split(range: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let page = at / PAGE;
        let end = range.end.min((page + 1) * PAGE);
        let part = (at % PAGE) as usize..(end - page * PAGE) as usize;
        at = end;
        Some((page, part))
    })
}

impl Contents {
    /// Bytes that are not holes.
    pub fn charged(&self) -> u64 {
        let count = |page: &Arc<Page>| page.is.iter().filter(|is| **is != 0).count() as u64;
        self.pages.values().map(count).sum()
    }

    /// Bytes of `range` that are not holes.
    pub fn covered(&self, range: Range<u64>) -> u64 {
        self.in_range(range)
            .map(|(_, page, part)| page.is[part].iter().filter(|is| **is != 0).count() as u64)
            .sum()
    }

    fn in_range(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &Page, Range<usize>)> {
        let pages = range.start / PAGE..range.end.div_ceil(PAGE).max(range.start / PAGE);
        self.pages.range(pages).filter_map(move |(number, page)| {
            let base = number * PAGE;
            let from = range.start.max(base) - base;
            let to = range.end.min(base + PAGE).saturating_sub(base);
            (from < to).then_some((*number, &**page, from as usize..to as usize))
        })
    }

    /// How much of the front of `range` fits into `room` bytes that are not charged yet.
    pub fn fitting(&self, range: Range<u64>, mut room: u64) -> u64 {
        for at in range.clone() {
            if self.is(at) == Is::Hole {
                if room == 0 {
                    return at - range.start;
                }
                room -= 1;
            }
        }
        range.end - range.start
    }

    pub fn is(&self, at: u64) -> Is {
        match self.pages.get(&(at / PAGE)).map_or(0, |p| p.is[(at % PAGE) as usize]) {
            0 => Is::Hole,
            1 => Is::Reserved,
            _ => Is::Data,
        }
    }

    fn page(&mut self, number: u64) -> &mut Page {
        let blank = || Arc::new(Page { bytes: [0; LEN], is: [0; LEN] });
        Arc::make_mut(self.pages.entry(number).or_insert_with(blank))
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut rest = data;
        for (number, part) in split(offset..offset + data.len() as u64) {
            let (now, later) = rest.split_at(part.len());
            rest = later;
            let page = self.page(number);
            page.bytes[part.clone()].copy_from_slice(now);
            page.is[part].fill(Is::Data as u8);
        }
    }

    pub fn reserve(&mut self, range: Range<u64>) {
        for (number, part) in split(range) {
            let page = self.page(number);
            for at in part {
                page.is[at] = page.is[at].max(Is::Reserved as u8);
            }
        }
    }

    /// Makes holes; the range may be as long as it likes.
    pub fn punch(&mut self, range: Range<u64>) {
        let hit: Vec<(u64, Range<usize>)> =
            self.in_range(range).map(|(number, _, part)| (number, part)).collect();
        for (number, part) in hit {
            let page = self.page(number);
            page.bytes[part.clone()].fill(0);
            page.is[part].fill(Is::Hole as u8);
            if page.is.iter().all(|is| *is == 0) {
                self.pages.remove(&number);
            }
        }
    }

    pub fn copy_from(&mut self, source: &Contents, from: Range<u64>, to: u64) {
        self.punch(to..to + (from.end - from.start));
        for at in from.clone() {
            let is = source.is(at);
            if is != Is::Hole {
                let byte = source.pages[&(at / PAGE)].bytes[(at % PAGE) as usize];
                let there = to + (at - from.start);
                let page = self.page(there / PAGE);
                page.bytes[(there % PAGE) as usize] = byte;
                page.is[(there % PAGE) as usize] = is as u8;
            }
        }
    }

    pub fn read(&self, range: Range<u64>) -> Vec<u8> {
        let mut all = vec![0; (range.end - range.start) as usize];
        for (number, page, part) in self.in_range(range.clone()) {
            let at = (number * PAGE + part.start as u64 - range.start) as usize;
            all[at..at + part.len()].copy_from_slice(&page.bytes[part]);
        }
        all
    }

    /// The first byte of `range` that is data, or that is none.
    pub fn next(&self, range: Range<u64>, data: bool) -> Option<u64> {
        if !data {
            return range.clone().find(|at| self.is(*at) != Is::Data);
        }
        self.in_range(range).find_map(|(number, page, part)| {
            part.clone().find(|at| page.is[*at] == 2).map(|at| number * PAGE + at as u64)
        })
    }

    /// The ranges to read in order to see all that is not zero, in whole pages.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for number in self.pages.keys() {
            match ranges.last_mut() {
                Some(last) if last.end == number * PAGE => last.end += PAGE,
                _ => ranges.push(number * PAGE..(number + 1) * PAGE),
            }
        }
        ranges
    }
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, page) in &self.pages {
            let digest = blake3::hash(&page.bytes);
            let count = |is| page.is.iter().filter(|i| **i == is).count();
            let (data, reserved) = (count(2), count(1));
            let hex = digest.to_hex();
            writeln!(f, "page {number}: {data} data, {reserved} reserved, {}", &hex[..8])?;
        }
        Ok(())
    }
}
