//! A home over the in-memory store: the first things that must hold.

use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::{ObjectStore, path::Path};
use yadokari_fs::home::*;

async fn open(store: &Arc<dyn ObjectStore>, shared: &Arc<Shared>) -> Home {
    let open = OpenHome {
        name: "alice".into(),
        data: Arc::clone(store),
        meta: Arc::clone(store),
        prefix: Path::from("homes/alice"),
        quota: Quota::NONE,
        root_uid: 1000,
        root_gid: 1000,
        root_perm: 0o700,
        shared: Arc::clone(shared),
        tenure: Arc::new(Undisputed),
        seed: Some(1),
    };
    Home::open(open).await.expect("opens")
}

fn file(perm: u16) -> NewNode {
    NewNode { kind: Kind::File, perm, umask: 0, rdev: 0, target: Bytes::new() }
}

fn name(s: &str) -> Name {
    Name::new(s.as_bytes()).expect("a name")
}

async fn read_all(home: &Home, ino: Ino) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let pieces = home.read(ino, all.len() as u64, 1 << 20).await.expect("reads");
        if pieces.is_empty() {
            return all;
        }
        for piece in pieces {
            all.extend_from_slice(&piece);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_there_after_the_home_was_closed_and_opened() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let shared = Shared::new(Config::default());
    let home = open(&store, &shared).await;
    let client = home.attach();
    let caller = Caller { uid: 1000, gid: 1000, client };
    let mut contents = Vec::new();
    for n in 0..200u32 {
        let attr = home
            .make(caller.clone(), Ino::ROOT, name(&format!("f{n}")), file(0o644))
            .await
            .expect("makes");
        let data: Vec<u8> = (0..n * 1500).map(|i| (i.wrapping_mul(n + 7) >> 3) as u8).collect();
        for (i, part) in data.chunks(10_000).enumerate() {
            let at = i as u64 * 10_000;
            let wrote = home
                .write(
                    caller.clone(),
                    attr.ino,
                    at,
                    Bytes::copy_from_slice(part),
                    WriteMode::default(),
                )
                .await
                .expect("writes");
            assert_eq!(wrote as usize, part.len());
        }
        if n % 10 == 0 {
            home.fsync(attr.ino).await.expect("syncs");
        }
        contents.push((attr.ino, data));
    }
    for (ino, data) in &contents {
        assert_eq!(read_all(&home, *ino).await, *data);
    }
    let usage = home.usage();
    home.close().await.expect("closes");

    let home = open(&store, &shared).await;
    assert_eq!(home.usage(), usage);
    let client = home.attach();
    for (n, (ino, data)) in contents.iter().enumerate() {
        let attr = home.lookup(client, Ino::ROOT, name(&format!("f{n}"))).await.expect("there");
        assert_eq!(attr.ino, *ino);
        assert_eq!(attr.size, data.len() as u64);
        assert_eq!(read_all(&home, *ino).await, *data, "file {n}");
    }
    let caller = Caller { uid: 1000, gid: 1000, client };
    for n in 0..contents.len() {
        home.unlink(caller.clone(), Ino::ROOT, name(&format!("f{n}"))).await.expect("removes");
    }
    for (ino, _) in &contents {
        home.forget(client, *ino, 1);
    }
    home.sync().await.expect("syncs");
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(home.usage().bytes, 0);
    assert_eq!(home.usage().inodes, 1);
    home.close().await.expect("closes");
}
