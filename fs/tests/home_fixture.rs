//! A home as this release's format has it, kept in the repository: every later release must open
//! it, and find in it what was put in.
//!
//! `YADOKARI_WRITE_FIXTURE=1 cargo test -p yadokari-fs --test home_fixture` writes it anew, for a
//! new version of the format only: the fixtures of earlier ones stay as they are.

mod common;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use common::{PREFIX, caller, dir, file, name, noise, open, read_all};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use yadokari_fs::home::fsck::{Options, check_closed};
use yadokari_fs::home::*;

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/home-format-1.tar")
}

/// A home with a record of every kind.
async fn build(store: &Arc<dyn ObjectStore>) {
    let home = open(store, store, &Shared::new(Config::default())).await;
    let me = caller(&home);
    let make = async |parent, called: &str, node| {
        home.make(me.clone(), parent, name(called), node).await.expect("makes").ino
    };
    let write = async |ino, at, data: Bytes| {
        home.write(me.clone(), ino, at, data, WriteMode::default()).await.expect("writes");
    };
    let docs = make(Ino::ROOT, "docs", dir()).await;
    let plain = make(docs, "plain", file(0o640)).await;
    write(plain, 0, noise(1, 5000)).await;
    let packed = make(docs, "packed", file(0o644)).await;
    write(packed, 0, vec![b'y'; 200_000].into()).await;
    let sparse = make(docs, "sparse", file(0o644)).await;
    for part in 0..6 {
        write(sparse, part * 1_000_000, noise(part, 500)).await;
    }
    home.fallocate(me.clone(), sparse, Falloc::Allocate { keep_size: true }, 6_000_000, 4096)
        .await
        .expect("reserves");
    home.link(me.clone(), plain, Ino::ROOT, name("hard")).await.expect("links");
    let link = NewNode { kind: Kind::Symlink, target: Bytes::from_static(b"docs/plain"), ..dir() };
    make(Ino::ROOT, "link", link).await;
    make(Ino::ROOT, "pipe", NewNode { kind: Kind::Fifo, ..file(0o600) }).await;
    make(Ino::ROOT, "null", NewNode { kind: Kind::CharDevice, rdev: 0x103, ..file(0o666) }).await;
    let (key, value) = (Bytes::from_static(b"user.k"), Bytes::from_static(b"v"));
    home.setxattr(me.clone(), plain, key, value, XattrMode::default()).await.expect("sets");
    home.make_snapshot("kept", Origin::Command).await.expect("makes a snapshot");
    write(plain, 0, noise(2, 100)).await;
    home.unlink(me.clone(), docs, name("packed")).await.expect("removes");
    home.detach(me.client);
    let me = caller(&home);
    let log = home.make(me.clone(), Ino::ROOT, name("log"), file(0o600)).await.expect("makes").ino;
    let mode = WriteMode::default();
    home.write(me.clone(), log, 0, noise(9, 300), mode).await.expect("writes");
    home.fsync(log).await.expect("syncs");
    home.close().await.expect("closes");
}

async fn pack(store: &Arc<dyn ObjectStore>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut all: Vec<_> = store.list(None).try_collect().await.expect("lists");
    all.sort_by(|a, b| a.location.cmp(&b.location));
    for meta in all {
        let got = store.get(&meta.location).await.expect("gets").bytes().await.expect("reads");
        let mut header = tar::Header::new_ustar();
        header.set_size(got.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, meta.location.as_ref(), &got[..]).expect("packs");
    }
    archive.into_inner().expect("packs")
}

async fn unpack(archive: &[u8]) -> Arc<dyn ObjectStore> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for entry in tar::Archive::new(archive).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = Path::from(String::from_utf8(entry.path_bytes().into_owned()).expect("a path"));
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("reads");
        store.put(&path, bytes.into()).await.expect("puts");
    }
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_of_format_1_opens_and_is_whole() {
    if std::env::var_os("YADOKARI_WRITE_FIXTURE").is_some() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        build(&store).await;
        std::fs::create_dir_all(fixture().parent().expect("a folder")).expect("makes");
        std::fs::write(fixture(), pack(&store).await).expect("writes");
    }
    let store = unpack(&std::fs::read(fixture()).expect("the fixture is there")).await;
    let options = Options { verify_data: true, in_use: false };
    let prefix = Path::from(PREFIX);
    let report = check_closed(&store, &store, &prefix, options, &mut |_| {}).await;
    let report = report.expect("checks");
    assert!(report.clean, "{report}");
    let home = open(&store, &store, &Shared::new(Config::default())).await;
    let me = caller(&home);
    let at = async |parent, called: &str| {
        home.lookup(me.client, parent, name(called)).await.expect("is there")
    };
    let docs = at(Ino::ROOT, "docs").await.ino;
    let plain = at(docs, "plain").await;
    assert_eq!((plain.nlink, plain.perm, plain.uid), (2, 0o640, 1000));
    let both = [&noise(2, 100)[..], &noise(1, 5000)[100..]].concat();
    assert_eq!(read_all(&home, plain.ino).await, both);
    assert_eq!(at(Ino::ROOT, "hard").await.ino, plain.ino);
    let sparse = at(docs, "sparse").await;
    assert_eq!((sparse.size, sparse.charged), (5_000_500, 6 * 500 + 4096));
    for part in 0..6 {
        let read = home.read(sparse.ino, part * 1_000_000, 500).await.expect("reads").concat();
        assert_eq!(read, noise(part, 500));
    }
    let link = at(Ino::ROOT, "link").await.ino;
    assert_eq!(home.readlink(link).await.expect("reads"), "docs/plain");
    assert_eq!(at(Ino::ROOT, "pipe").await.kind, Kind::Fifo);
    assert_eq!(at(Ino::ROOT, "null").await.rdev, 0x103);
    let log = at(Ino::ROOT, "log").await.ino;
    assert_eq!(read_all(&home, log).await, noise(9, 300));
    let value = home.getxattr(plain.ino, Bytes::from_static(b"user.k")).await;
    assert_eq!(value.expect("is there"), "v");
    let kept = home.snapshot("kept").expect("is there");
    let old = kept.lookup(docs, &name("plain")).await.expect("is there").ino;
    let read = kept.read(old, 0, 9999).await.expect("reads").concat();
    assert_eq!(read, noise(1, 5000));
    let old = kept.lookup(docs, &name("packed")).await.expect("is there").ino;
    let read = kept.read(old, 0, 300_000).await.expect("reads").concat();
    assert_eq!(read, vec![b'y'; 200_000]);
    home.make(me.clone(), Ino::ROOT, name("new"), file(0o600)).await.expect("is written to");
    home.remove_snapshot("kept").await.expect("removes");
    home.close().await.expect("closes");
}
