//! What must hold of one file's extents, one after the other. Pure.

use smallvec::SmallVec;

use crate::home::extent::WINDOW_BYTES;
use crate::home::record::{ExtentRecord, Place};
use crate::home::types::FILE_BYTES_MAX;

/// What is wrong with an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It begins before the one before ends.
    Overlap,
    /// It crosses a multiple of the window size.
    Window,
    /// It is empty, or ends behind the largest offset.
    Limit,
    /// It holds data behind the end of the file.
    BehindEnd,
}

/// Goes along the extents of a file.
#[derive(Debug)]
pub struct Walk {
    size: Option<u64>,
    end: u64,
    /// Bytes of the extents so far.
    pub bytes: u64,
}

impl Walk {
    /// A file of `size`; `None`: its size says nothing.
    #[must_use]
    pub fn new(size: Option<u64>) -> Self {
        Self { size, end: 0, bytes: 0 }
    }

    /// The next extent.
    pub fn step(&mut self, offset: u64, extent: &ExtentRecord) -> SmallVec<[Wrong; 2]> {
        let mut wrong = SmallVec::new();
        let end = offset.saturating_add(extent.len);
        self.bytes = self.bytes.saturating_add(extent.len);
        if extent.len == 0 || end > FILE_BYTES_MAX {
            wrong.push(Wrong::Limit);
        } else if offset / WINDOW_BYTES != (end - 1) / WINDOW_BYTES {
            wrong.push(Wrong::Window);
        }
        if offset < self.end {
            wrong.push(Wrong::Overlap);
        }
        // Space may be reserved behind the end, data never lies there.
        if extent.place != Place::Reserved && self.size.is_some_and(|size| end > size) {
            wrong.push(Wrong::BehindEnd);
        }
        self.end = self.end.max(end);
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved(len: u64) -> ExtentRecord {
        ExtentRecord { len, place: Place::Reserved }
    }

    fn small(len: u64) -> ExtentRecord {
        ExtentRecord { len, place: Place::Small { id: 1, at: 0 } }
    }

    #[test]
    fn extents_in_order_within_their_windows_are_right() {
        let mut walk = Walk::new(Some(WINDOW_BYTES));
        assert!(walk.step(0, &small(10)).is_empty());
        assert!(walk.step(10, &reserved(WINDOW_BYTES - 10)).is_empty());
        assert!(walk.step(WINDOW_BYTES, &reserved(WINDOW_BYTES)).is_empty());
        assert_eq!(walk.bytes, 2 * WINDOW_BYTES);
    }

    #[test]
    fn every_wrong_extent_is_told_by_its_name() {
        let mut walk = Walk::new(Some(100));
        assert_eq!(walk.step(0, &small(0))[..], [Wrong::Limit]);
        assert_eq!(walk.step(0, &small(50))[..], []);
        assert_eq!(walk.step(40, &small(20))[..], [Wrong::Overlap]);
        assert_eq!(walk.step(60, &small(41))[..], [Wrong::BehindEnd]);
        assert_eq!(walk.step(200, &reserved(WINDOW_BYTES))[..], [Wrong::Window]);
        assert_eq!(walk.step(FILE_BYTES_MAX, &reserved(1))[..], [Wrong::Limit]);
    }
}
