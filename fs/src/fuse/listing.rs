//! A listing as the kernel takes it: lines, each filled up to 8 bytes, as many as it asked for.

use zerocopy::IntoBytes;

use super::abi::{Dirent, EntryOut};
use super::attr::mode_of;
use super::reply::entry_out;
use crate::view::Line;

/// Lines start at multiples of this.
const LINE_ALIGN: usize = 8;

/// Lines that fit into an answer.
#[derive(Debug)]
pub struct Listing {
    bytes: Vec<u8>,
    bytes_max: usize,
    plus: bool,
}

impl Listing {
    /// An empty one for at most `bytes_max` bytes, with attributes where `plus`.
    pub fn new(bytes_max: u32, plus: bool) -> Self {
        Self { bytes: Vec::new(), bytes_max: bytes_max as usize, plus }
    }

    /// Adds a line where it fits; gives whether it did.
    pub fn add(&mut self, line: &Line) -> bool {
        // A number of 0 gives no attributes along, which the kernel then does not count as a
        // look-up.
        let entry = line.node.as_ref().map_or_else(EntryOut::default, entry_out);
        let entry: &[u8] = if self.plus { entry.as_bytes() } else { &[] };
        let dirent = Dirent {
            ino: line.number,
            off: line.next,
            namelen: u32::try_from(line.name.len()).expect("a name has at most 255 bytes"),
            kind: mode_of(line.kind) >> 12,
        };
        let len = entry.len() + size_of::<Dirent>() + line.name.len();
        let end = self.bytes.len() + len.next_multiple_of(LINE_ALIGN);
        if end > self.bytes_max {
            return false;
        }
        self.bytes.extend_from_slice(entry);
        self.bytes.extend_from_slice(dirent.as_bytes());
        self.bytes.extend_from_slice(&line.name);
        self.bytes.resize(end, 0);
        true
    }

    /// The lines.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Kind;

    fn line(name: &str) -> Line {
        Line { number: 9, kind: Kind::Dir, name: name.as_bytes().into(), next: 5, node: None }
    }

    #[test]
    fn a_line_is_number_cookie_length_kind_and_name_filled_up_to_eight_bytes() {
        let mut listing = Listing::new(4096, false);
        assert!(listing.add(&line("sub")));
        let mut expected = Vec::new();
        expected.extend(9u64.to_ne_bytes());
        expected.extend(5u64.to_ne_bytes());
        expected.extend(3u32.to_ne_bytes());
        expected.extend(4u32.to_ne_bytes());
        expected.extend(b"sub\0\0\0\0\0");
        assert_eq!(listing.as_bytes(), expected);
    }

    #[test]
    fn a_line_that_does_not_fit_is_left_out_whole() {
        let mut listing = Listing::new(63, false);
        assert!(listing.add(&line("a")));
        assert!(!listing.add(&line("b")));
        assert_eq!(listing.as_bytes().len(), 32);
        let mut plus = Listing::new(159, true);
        assert!(!plus.add(&line("a")));
        assert_eq!(plus.as_bytes(), b"");
    }
}
