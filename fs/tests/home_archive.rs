//! Homes as archives: what odd archives do, without a mount.

mod common;

use std::sync::Arc;

use common::{caller, file, name, noise, open, read_all};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::runtime::Handle;
use yadokari_fs::archive::{self, ArchiveError, Moved};
use yadokari_fs::home::*;

async fn new_home() -> Home {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    open(&store, &store, &Shared::new(Config::default())).await
}

async fn import(home: &Home, bytes: Vec<u8>) -> archive::Result<Moved> {
    let (home, runtime) = (home.clone(), Handle::current());
    let work = move || archive::import(&runtime, &home, &bytes[..], &mut |_| {});
    tokio::task::spawn_blocking(work).await.expect("ends")
}

async fn export(home: &Home) -> Vec<u8> {
    home.make_snapshot("s", Origin::Command).await.expect("makes a snapshot");
    let (snapshot, runtime) = (home.snapshot("s").expect("is there"), Handle::current());
    let work = move || {
        let mut bytes = Vec::new();
        archive::export(&runtime, &snapshot, &mut bytes, &mut |_| {}).map(|_| bytes)
    };
    tokio::task::spawn_blocking(work).await.expect("ends").expect("exports")
}

/// An archive of files with these paths and contents.
fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, contents) in files {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(contents.len() as u64);
        header.set_mode(0o640);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(9);
        header.set_cksum();
        archive.append(&header, *contents).expect("packs");
    }
    archive.into_inner().expect("packs")
}

async fn at(home: &Home, path: &str) -> Attr {
    let client = home.attach();
    let mut attr = home.getattr(Ino::ROOT).await.expect("is there");
    for part in path.split('/') {
        attr = home.lookup(client, attr.ino, name(part)).await.expect("is there");
    }
    attr
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sparse_file_of_any_shape_comes_back_with_its_holes() {
    let (home, copy) = (new_home().await, new_home().await);
    let me = caller(&home);
    let shapes: [&[(u64, usize)]; 5] =
        [&[], &[(0, 10)], &[(70_000_000, 5)], &[(0, 4096), (1 << 40, 9000)], &[(5, 1), (900, 1)]];
    for (number, parts) in shapes.iter().enumerate() {
        let made = home.make(me.clone(), Ino::ROOT, name(&number.to_string()), file(0o600));
        let ino = made.await.expect("makes").ino;
        for (at, len) in *parts {
            let data = noise(*at, *len);
            home.write(me.clone(), ino, *at, data, WriteMode::default()).await.expect("writes");
        }
        let size = SetAttr { size: Some((1 << 40) + 10_000), ..SetAttr::default() };
        home.setattr(me.clone(), ino, size).await.expect("sets");
    }
    import(&copy, export(&home).await).await.expect("imports");
    for (number, parts) in shapes.iter().enumerate() {
        let number = number.to_string();
        let (old, new) = (at(&home, &number).await, at(&copy, &number).await);
        assert_eq!((old.size, old.mtime), (new.size, new.mtime));
        assert!(new.charged >= old.charged, "{old:?} {new:?}");
        assert!(new.charged - old.charged <= 1024 * parts.len() as u64, "{old:?} {new:?}");
        for (offset, len) in *parts {
            let read = copy.read(new.ino, *offset, *len as u32).await.expect("reads");
            assert_eq!(read.concat(), noise(*offset, *len));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_archive_leaves_out_is_made_and_what_it_says_twice_is_the_later() {
    let home = new_home().await;
    let files: [(&str, &[u8]); 3] =
        [("/a/b/./c", b"first"), ("x", b"other"), ("a/b/c", b"second, longer")];
    import(&home, packed(&files)).await.expect("imports");
    let attr = at(&home, "a/b/c").await;
    assert_eq!((attr.perm, attr.uid, attr.gid, attr.mtime.sec), (0o640, 7, 8, 9));
    assert_eq!(read_all(&home, attr.ino).await, b"second, longer");
    assert_eq!(at(&home, "a").await.perm, 0o755);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_that_lead_out_and_names_of_snapshots_are_refused() {
    for path in ["../x", "a/../../x", ".snapshots/s/x", "./.snapshots"] {
        let error = import(&new_home().await, packed(&[(path, b"x")])).await.expect_err(path);
        assert!(matches!(error, ArchiveError::Invalid(..)), "{path}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_archive_and_what_breaks_off_is_an_error() {
    let whole = packed(&[("a", &noise(1, 5000)), ("b", &noise(2, 5000))]);
    for bytes in [
        noise(3, 4096).to_vec(),
        whole[..3000].to_vec(),
        whole[..6000].to_vec(),
        whole[..5632].to_vec(),
    ] {
        let error = import(&new_home().await, bytes).await.expect_err("is not whole");
        assert!(matches!(error, ArchiveError::Io(_)), "{error}");
    }
    let home = new_home().await;
    home.set_quota(Quota { bytes: 6000, inodes: u64::MAX });
    let error = import(&home, whole).await.expect_err("is too much");
    let over = matches!(&error, ArchiveError::Home(path, e)
        if path == "b" && matches!(e.kind(), ErrorKind::OverQuota));
    assert!(over, "{error}");
}
