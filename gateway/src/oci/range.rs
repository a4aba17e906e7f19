//! `Range` of downloads (RFC 9110, section 14) and `Content-Range` of upload chunks.

/// What a `Range` header asks of content of a known size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Everything: no range, several ranges, another unit, or one that cannot be read.
    All,
    /// One part: first byte and how many, at least one.
    Part { start: u64, len: u64 },
    /// Nothing of it is there: 416.
    Nothing,
}

/// Reads a `Range` header.
///
/// Several ranges are answered with everything, which RFC 9110 allows. A range that ends before
/// it starts is 416, as the conformance suite of OCI has it.
#[must_use]
pub fn asked(header: Option<&str>, size: u64) -> Asked {
    let Some(header) = header else { return Asked::All };
    let Some((unit, set)) = header.split_once('=') else { return Asked::All };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return Asked::All;
    }
    let Some((first, last)) = set.trim().split_once('-') else { return Asked::All };
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        return match number(last) {
            None => Asked::All,
            Some(0) => Asked::Nothing,
            Some(_) if size == 0 => Asked::Nothing,
            Some(suffix) => {
                let len = suffix.min(size);
                Asked::Part { start: size - len, len }
            }
        };
    }
    let Some(start) = number(first) else { return Asked::All };
    let end = if last.is_empty() {
        u64::MAX
    } else {
        match number(last) {
            Some(end) => end,
            None => return Asked::All,
        }
    };
    if end < start || start >= size {
        return Asked::Nothing;
    }
    Asked::Part { start, len: end.min(size - 1) - start + 1 }
}

/// The `Content-Range` of a chunk, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Offset of its first byte.
    pub start: u64,
    /// How many bytes.
    pub len: u64,
}

/// Reads the `Content-Range` of a chunk: `0-99`, and as HTTP has it `bytes 0-99/200`.
///
/// # Errors
/// When it is neither; what is wrong, for the client.
pub fn chunk(header: &str) -> Result<Chunk, &'static str> {
    const SHAPE: &str = "Content-Range must be FIRST-LAST, both inclusive";
    let text = header.trim();
    let text = text.strip_prefix("bytes").unwrap_or(text).trim_start_matches([' ', '=']);
    let text = text.split('/').next().unwrap_or_default();
    let (first, last) = text.split_once('-').ok_or(SHAPE)?;
    let start = number(first).ok_or(SHAPE)?;
    let last = number(last).ok_or(SHAPE)?;
    let len = last.checked_sub(start).and_then(|less| less.checked_add(1));
    Ok(Chunk { start, len: len.ok_or("Content-Range ends before it starts")? })
}

/// The `Range` of a session that holds so many bytes; an empty one says `0-0`, as all do.
#[must_use]
pub fn received(bytes: u64) -> String {
    format!("0-{}", bytes.saturating_sub(1))
}

/// Digits only: no sign, no space, no overflow.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read_as_the_conformance_suite_asks() {
        let part = |start, len| Asked::Part { start, len };
        for (header, expected) in [
            ("bytes=500-1499", part(500, 1000)),
            ("bytes=500-", part(500, 1548)),
            ("bytes=-500", part(1548, 500)),
            ("bytes=-5000", part(0, 2048)),
            ("bytes=2000-5000", part(2000, 48)),
            ("bytes=2047-2047", part(2047, 1)),
            ("bytes=500-0", Asked::Nothing),
            ("bytes=5000-10000", Asked::Nothing),
            ("bytes=2048-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=0-1,5-9", Asked::All),
            ("lines=1-2", Asked::All),
            ("bytes=", Asked::All),
            ("bytes=a-b", Asked::All),
            ("bytes=1-99999999999999999999999", Asked::All),
        ] {
            assert_eq!(asked(Some(header), 2048), expected, "{header}");
        }
        assert_eq!(asked(None, 10), Asked::All);
        assert_eq!(asked(Some("bytes=0-0"), 0), Asked::Nothing);
    }

    #[test]
    fn chunks_are_inclusive() {
        assert_eq!(chunk("0-0"), Ok(Chunk { start: 0, len: 1 }));
        assert_eq!(chunk("10-19"), Ok(Chunk { start: 10, len: 10 }));
        assert_eq!(chunk("bytes 10-19/100"), Ok(Chunk { start: 10, len: 10 }));
        for wrong in ["", "5", "5-", "-5", "9-5", "a-b", "0-18446744073709551615", "+1-2"] {
            assert!(chunk(wrong).is_err(), "{wrong}");
        }
        assert_eq!(received(0), "0-0");
        assert_eq!(received(100), "0-99");
    }

    proptest! {
        #[test]
        fn a_part_always_lies_inside_the_content(header in "(bytes=)?[0-9,-]{0,24}", size: u64) {
            if let Asked::Part { start, len } = asked(Some(&header), size) {
                prop_assert!(len > 0);
                prop_assert!(start.checked_add(len).is_some_and(|end| end <= size));
            }
        }

        #[test]
        fn no_header_makes_it_panic(header in "\\PC{0,40}", size: u64) {
            let _ = asked(Some(&header), size);
            let _ = chunk(&header);
        }
    }
}
