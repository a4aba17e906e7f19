//! Which numbers scans have gone over, so that a scan that brings rows along ends where an earlier
//! one began: a walk in any order reads every row about once.

use std::collections::BTreeMap;

/// Ranges that are remembered; a walk in order has one, one in the order of hashes some hundred.
const RANGES_MAX: usize = 4096;

/// Ranges of numbers whose rows are in memory in some form, unless they were dropped since: a
/// guess that costs or saves reading and nothing else.
#[derive(Debug, Default)]
pub struct Brought {
    /// The ends of ranges by their starts; they neither overlap nor touch.
    ranges: BTreeMap<u64, u64>,
}

impl Brought {
    /// Where a scan from `start` meets what was brought: `u64::MAX` if nowhere. What was brought
    /// of `start` is gone, or nobody would scan from there; what lies behind it in the same range
    /// is about as old and counts as gone too.
    pub fn meets(&mut self, start: u64) -> u64 {
        if let Some((from, end)) = self.ranges.range_mut(..=start).next_back()
            && *end > start
        {
            *end = start;
            if *from == start {
                self.ranges.remove(&start);
            }
        }
        self.ranges.range(start..).next().map_or(u64::MAX, |(next, _)| *next)
    }

    /// The rows of `start..end` are in memory now.
    pub fn add(&mut self, mut start: u64, mut end: u64) {
        if self.ranges.len() >= RANGES_MAX {
            self.ranges.clear();
        }
        if let Some((before, to)) = self.ranges.range(..start).next_back()
            && *to >= start
        {
            (start, end) = (*before, end.max(*to));
        }
        while let Some((next, to)) = self.ranges.range(start..=end).next() {
            let (next, to) = (*next, *to);
            self.ranges.remove(&next);
            end = end.max(to);
        }
        if start < end {
            self.ranges.insert(start, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_end_where_earlier_ones_began() {
        let mut brought = Brought::default();
        assert_eq!(brought.meets(0), u64::MAX);
        brought.add(100, 200);
        brought.add(300, 400);
        assert_eq!(
            (brought.meets(50), brought.meets(200), brought.meets(400)),
            (100, 300, u64::MAX)
        );
        brought.add(200, 300);
        assert_eq!(brought.ranges, [(100, 400)].into());
        brought.add(50, 60);
        brought.add(60, 60);
        assert_eq!(brought.ranges, [(50, 60), (100, 400)].into());
        brought.add(40, 500);
        assert_eq!(brought.ranges, [(40, 500)].into());
    }

    #[test]
    fn what_is_asked_for_again_is_gone_and_so_is_what_lies_behind() {
        let mut brought = Brought::default();
        brought.add(100, 200);
        brought.add(300, 400);
        assert_eq!(brought.meets(150), 300);
        assert_eq!(brought.ranges, [(100, 150), (300, 400)].into());
        assert_eq!(brought.meets(300), u64::MAX);
        assert_eq!(brought.ranges, [(100, 150)].into());
    }

    #[test]
    fn few_ranges_are_remembered() {
        let mut brought = Brought::default();
        (0..10 * RANGES_MAX as u64).for_each(|n| brought.add(10 * n, 10 * n + 1));
        assert!(brought.ranges.len() <= RANGES_MAX);
    }
}
