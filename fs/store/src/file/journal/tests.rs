//! What a crash may leave of the journal and of the files beside it, and what must come of it.

use super::super::{Class, FileStore};
use super::record::Record;
use super::*;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};

/// What a loss of power may leave of a file that was never synced.
#[derive(Debug, Clone, Copy)]
enum Left {
    Whole,
    Missing,
    Empty,
    Short,
    Zeros,
}

const ALL: [Left; 5] = [Left::Whole, Left::Missing, Left::Empty, Left::Short, Left::Zeros];

fn open(dir: &Path) -> FileStore {
    FileStore::open(dir, Some(0)).expect("a store")
}

async fn create(store: &FileStore, name: &str, data: &str) -> object_store::Result<()> {
    let path = Location::from(name);
    let put = store.put_opts(&path, data.to_owned().into(), PutMode::Create.into());
    put.await.map(drop)
}

async fn read(store: &FileStore, name: &str) -> Option<String> {
    match store.get(&Location::from(name)).await {
        Ok(got) => {
            let bytes = got.bytes().await.expect("whole");
            Some(String::from_utf8(bytes.to_vec()).expect("text"))
        }
        Err(object_store::Error::NotFound { .. }) => None,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// The directory as a loss of power leaves it: a copy, whose locks nobody holds.
fn lose_power(dir: &Path, unsynced: &[&str], left: Left) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    copy_tree(dir, copy.path());
    for name in unsynced {
        let file = copy.path().join(format!("{name}="));
        let bytes = fs::read(&file).expect("it is there");
        match left {
            Left::Whole => {}
            Left::Missing => fs::remove_file(&file).expect("removed"),
            Left::Empty => fs::write(&file, "").expect("written"),
            Left::Short => fs::write(&file, &bytes[..bytes.len() / 2]).expect("written"),
            Left::Zeros => fs::write(&file, vec![0; bytes.len()]).expect("written"),
        }
    }
    copy
}

/// Not by `cp`: a child has all of the process's locks, of every test, until it runs a program.
fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("read");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            fs::create_dir(&to).expect("made");
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).expect("copied");
        }
    }
}

fn journals(dir: &Path) -> Vec<PathBuf> {
    journals_in(&dir.join(".yadokari/tmp")).expect("read")
}

fn all_records(dir: &Path) -> Vec<Record> {
    let files = journals(dir).into_iter().map(|path| File::open(path).expect("opens"));
    files.flat_map(|file| records(&file).expect("read")).collect()
}

#[tokio::test]
async fn what_was_created_outlives_a_loss_of_power_whatever_that_leaves_of_its_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    // The first one in a directory goes the long way and is durable as a file.
    create(&store, "a/first", "long way").await.expect("created");
    for i in 0..3 {
        create(&store, &format!("a/{i}"), &format!("content {i}")).await.expect("created");
    }
    assert_eq!(all_records(dir.path()).len(), 3);
    for left in ALL {
        let copy = lose_power(dir.path(), &["a/0", "a/1", "a/2"], left);
        let after = open(copy.path());
        for i in 0..3 {
            let now = read(&after, &format!("a/{i}")).await;
            assert_eq!(now, Some(format!("content {i}")), "{left:?}");
        }
        assert_eq!(read(&after, "a/first").await.as_deref(), Some("long way"));
        assert_eq!(journals(copy.path()).len(), 0, "{left:?}");
    }
}

#[tokio::test]
async fn a_directory_that_was_lost_with_its_objects_comes_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    create(&store, "a/b/first", "x").await.expect("created");
    create(&store, "a/b/second", "y").await.expect("created");
    let copy = lose_power(dir.path(), &[], Left::Whole);
    fs::remove_dir_all(copy.path().join("a")).expect("removed");
    assert_eq!(read(&open(copy.path()), "a/b/second").await.as_deref(), Some("y"));
}

#[tokio::test]
async fn what_was_removed_or_refused_does_not_come_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    create(&store, "a/first", "x").await.expect("created");
    create(&store, "a/removed", "by its maker").await.expect("created");
    create(&store, "a/foreign", "removed by another process").await.expect("created");
    create(&store, "a/replaced", "old").await.expect("created");
    assert!(create(&store, "a/first", "refused").await.is_err());
    store.delete(&"a/removed".into()).await.expect("deleted");
    let other = open(dir.path());
    other.delete(&"a/foreign".into()).await.expect("deleted");
    other.put(&"a/replaced".into(), "new".into()).await.expect("put");
    assert!(create(&store, "a/replaced", "refused").await.is_err());
    let copy = lose_power(dir.path(), &[], Left::Whole);
    let after = open(copy.path());
    assert_eq!(read(&after, "a/first").await.as_deref(), Some("x"));
    assert_eq!(read(&after, "a/removed").await, None);
    assert_eq!(read(&after, "a/foreign").await, None);
    assert_eq!(read(&after, "a/replaced").await.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_name_that_is_removed_and_made_again_has_its_last_content() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    create(&store, "a/first", "x").await.expect("created");
    for i in 0..5 {
        create(&store, "a/again", &format!("content {i}")).await.expect("created");
        for left in ALL {
            let copy = lose_power(dir.path(), &["a/again"], left);
            let now = read(&open(copy.path()), "a/again").await;
            assert_eq!(now, Some(format!("content {i}")), "{left:?}");
        }
        store.delete(&"a/again".into()).await.expect("deleted");
    }
}

#[tokio::test]
async fn a_record_that_was_cut_off_is_as_if_it_never_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    create(&store, "a/first", "x").await.expect("created");
    create(&store, "a/0", "acknowledged").await.expect("created");
    create(&store, "a/1", "was being written").await.expect("created");
    create(&store, "a/2", "acknowledged as well").await.expect("created");
    let cut = all_records(dir.path()).remove(1);
    assert_eq!(cut.name, Path::new("a/1="));
    for byte in [0, 7, 8, 11, 12, 16, 23, 24, 32, 47, 48, 52, 60, 120, 4095] {
        let copy = lose_power(dir.path(), &["a/0", "a/1", "a/2"], Left::Missing);
        let path = journals(copy.path()).remove(0);
        let file = OpenOptions::new().read(true).write(true).open(path).expect("opens");
        let mut there = [0];
        file.read_exact_at(&mut there, cut.at + byte).expect("read");
        file.write_all_at(&[there[0] ^ 0xff], cut.at + byte).expect("written");
        let after = open(copy.path());
        assert_eq!(read(&after, "a/0").await.as_deref(), Some("acknowledged"));
        assert_eq!(read(&after, "a/2").await.as_deref(), Some("acknowledged as well"));
        // Bytes behind the record, and the zeros in its head, are nobody's.
        let now = read(&after, "a/1").await;
        assert!(now.is_none() || now.as_deref() == Some("was being written"), "byte {byte}");
    }
}

#[tokio::test]
async fn content_that_looks_like_a_record_is_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    create(&store, "a/first", "x").await.expect("created");
    // With the key of another journal, as one finds it in a copy of a store.
    let forged = encode(Path::new("a/forged="), &[b"evil"], 4, &[7; 32]);
    let mut data = vec![0; 2 * PAGE as usize + 500];
    let head = RECORD_HEAD + "a/host=".len();
    data[PAGE as usize - head..][..forged.len()].copy_from_slice(&forged);
    let host = Location::from("a/host");
    let put = store.put_opts(&host, data.into(), PutMode::Create.into());
    put.await.expect("created");
    let copy = lose_power(dir.path(), &["a/host"], Left::Missing);
    let path = journals(copy.path()).remove(0);
    let at = all_records(copy.path()).remove(0).at;
    // The record around it is damaged, so that its pages are looked at one by one.
    let file = OpenOptions::new().write(true).open(path).expect("opens");
    file.write_all_at(b"x", at).expect("written");
    let after = open(copy.path());
    assert_eq!(read(&after, "a/forged").await, None);
    assert_eq!(read(&after, "a/host").await, None);
}

#[tokio::test]
async fn a_journal_that_was_being_made_or_begun_again_holds_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    create(&store, "a/first", "x").await.expect("created");
    create(&store, "a/1", "y").await.expect("created");
    for damage in 0..3 {
        let copy = lose_power(dir.path(), &[], Left::Whole);
        let path = journals(copy.path()).remove(0);
        match damage {
            0 => fs::write(&path, "").expect("written"),
            1 => fs::write(&path, vec![0; 5000]).expect("written"),
            _ => {
                let file = OpenOptions::new().write(true).open(&path).expect("opens");
                file.write_all_at(&segment_head(&[9; 32]), 0).expect("written");
            }
        }
        let after = open(copy.path());
        assert_eq!(read(&after, "a/1").await.as_deref(), Some("y"));
        assert_eq!(journals(copy.path()).len(), 0);
    }
}

#[tokio::test]
async fn segments_are_used_in_turn_and_nothing_is_lost_at_any_moment() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    create(&store, "a/first", "x").await.expect("created");
    let long = "z".repeat(60 << 10);
    let count = 3 * SEGMENT_BYTES as usize / long.len();
    for i in 0..count {
        create(&store, &format!("a/{i}"), &format!("{i} {long}")).await.expect("created");
        if i % 50 == 49 {
            let held = all_records(dir.path());
            // What no record holds must be durable as a file; what one holds need not be there.
            let names: Vec<String> = held
                .iter()
                .filter(|record| !record.void)
                .map(|record| record.name.display().to_string().trim_end_matches('=').to_owned())
                .collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let copy = lose_power(dir.path(), &names, Left::Missing);
            let after = open(copy.path());
            for before in 0..=i {
                let now = read(&after, &format!("a/{before}")).await;
                assert_eq!(now, Some(format!("{before} {long}")), "of {i}");
            }
        }
    }
    drop(store);
    assert_eq!(fs::read_dir(dir.path().join(".yadokari/tmp")).expect("read").count(), 0);
    assert_eq!(read(&open(dir.path()), "a/7").await, Some(format!("7 {long}")));
}

#[tokio::test]
async fn a_store_of_the_form_before_opens_and_becomes_one_of_this_form() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    create(&store, "a/first", "x").await.expect("created");
    drop(store);
    let format = dir.path().join(".yadokari/format");
    fs::write(&format, "yadokari file store 1\n").expect("written");
    assert_eq!(read(&open(dir.path()), "a/first").await.as_deref(), Some("x"));
    assert_eq!(fs::read_to_string(&format).expect("read"), "yadokari file store 2\n");
}

#[tokio::test]
async fn what_is_large_or_replaces_something_goes_the_long_way() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    assert_eq!(store.class, Class::Data);
    create(&store, "a/first", "x").await.expect("created");
    create(&store, "a/large", &"y".repeat(OBJECT_BYTES_MAX + 1)).await.expect("created");
    store.put(&"a/put".into(), "z".into()).await.expect("put");
    assert_eq!(journals(dir.path()).len(), 0);
}

#[tokio::test]
async fn one_opening_journals_at_a_time_and_the_next_makes_good_what_a_dead_one_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let (first, second) = (open(dir.path()), open(dir.path()));
    create(&first, "a/first", "x").await.expect("created");
    create(&second, "a/second", "x").await.expect("created");
    create(&first, "a/1", "journalled").await.expect("created");
    create(&second, "a/2", "the long way").await.expect("created");
    let names: Vec<PathBuf> = all_records(dir.path()).into_iter().map(|r| r.name).collect();
    assert_eq!(names, [Path::new("a/1=")]);

    // A third opening of another directory lives when the files of a dead one appear there.
    let copy = lose_power(dir.path(), &["a/1"], Left::Missing);
    let other = tempfile::tempdir().expect("a directory");
    let third = open(other.path());
    create(&third, "a/first", "x").await.expect("created");
    for path in fs::read_dir(copy.path().join(".yadokari/tmp")).expect("read") {
        let path = path.expect("read").path();
        if path.is_file() {
            let to = other.path().join(".yadokari/tmp").join(path.file_name().expect("a name"));
            fs::copy(&path, to).expect("copied");
        }
    }
    create(&third, "a/3", "journalled").await.expect("created");
    assert_eq!(read(&third, "a/1").await.as_deref(), Some("journalled"));
    let names: Vec<PathBuf> = all_records(other.path()).into_iter().map(|r| r.name).collect();
    assert_eq!(names, [Path::new("a/3=")]);

    drop(first);
    create(&second, "a/4", "has the right now").await.expect("created");
    let names: Vec<PathBuf> = all_records(dir.path()).into_iter().map(|r| r.name).collect();
    assert_eq!(names, [Path::new("a/4=")]);
}
