//! The forms read back, and paths find their shards again.

use super::*;

#[test]
fn a_description_an_entry_and_a_layout_read_back() {
    let now = whole_micros(SystemTime::now());
    let attributes = Attributes::from_iter([(object_store::Attribute::ContentType, "a/b")]);
    let it = Description { nonce: [7; 16], in_parts: true, modified: now, size: 9, attributes };
    let bytes = it.encode().expect("fits");
    assert_eq!(Description::decode(&bytes), Some(it));
    let written = UNIX_EPOCH + Duration::from_secs(77);
    let confirmed = State::Confirmed { version: 3, size: 4, modified: now, in_parts: true };
    for state in [State::Pending, State::Deleting, confirmed] {
        let entry = Entry { state, nonce: [1; 16], written };
        assert_eq!(Entry::decode(&entry.encode()), Some(entry));
        assert_eq!(Entry::decode(&entry.encode()[1..]), None);
    }
    let mut layout = Layout::default();
    for bytes in [10, 10, 3, 10] {
        layout.push(bytes);
    }
    assert_eq!((layout.parts(), layout.size()), (4, 33));
    assert_eq!(Layout::decode(&layout.encode()), Some(layout));
}

#[test]
fn pieces_cover_exactly_the_range() {
    let mut layout = Layout::default();
    for bytes in [10, 10, 3, 10] {
        layout.push(bytes);
    }
    for start in 0..33 {
        for end in start + 1..=33 {
            let pieces = layout.pieces(start..end, 4);
            assert_eq!(pieces.iter().map(|piece| piece.length).sum::<u64>(), end - start);
            assert!(pieces.iter().all(|piece| (1..=4).contains(&piece.length)));
        }
    }
    let piece = Piece { part: 2, offset: 1, length: 2 };
    assert_eq!(layout.pieces(21..23, 100), [piece]);
}

#[test]
fn every_path_lies_in_a_shard_of_each_prefix_above_it() {
    for path in ["a", "a/b", "a/b/c", "a/b/c/d", "homes/alice/wal/0001.sst", "x/y"] {
        let path = Path::from(path);
        let shard = shard_of(&path);
        let mut above = path.parent();
        while let Some(prefix) = above {
            let shards = shards_below(prefix.as_ref());
            assert!(shards.contains(&shard), "{path} below {prefix}");
            assert!(shards.len() == usize::from(SPREAD) || prefix.parts_count() < 2);
            above = prefix.parent();
        }
    }
}

#[test]
fn etags_and_part_names_read_back() {
    assert_eq!(parse_e_tag(&e_tag(255, true)), Some((255, true)));
    assert_eq!(parse_e_tag(&e_tag(1, false)), Some((1, false)));
    assert_eq!(parse_e_tag("foreign"), None);
    let name = part_name(&[9; 16], 3);
    assert_eq!(nonce_of_part(name.to_str().expect("UTF-8")), Some([9; 16]));
}
