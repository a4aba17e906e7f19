//! Stores whose process is killed in the middle of its work, and a store on a full disk.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use yadokari_store::{Kind, Store, StoreOptions, StoreUrl, kind};
use yadokari_tests::ceph::shared_url;

/// Tells a process of this test to be the one that is killed, on that store.
const CHILD_ENV: &str = "YADOKARI_TEST_KILL_URL";
const ROUNDS: u32 = 6;
const LENGTH: usize = 3000;

async fn open(url: &str) -> Store {
    let url: StoreUrl = url.parse().expect("a URL");
    let opened = Store::open(&url, &StoreOptions::default()).await;
    opened.unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

fn content(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(LENGTH).collect()
}

/// What the test knows of an object from what the child said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    There,
    Gone,
    /// Something was begun that was not acknowledged.
    Open,
}

/// Creates objects and deletes every third again, in eight tasks, and says so before and after.
async fn child(url: &str) {
    let store = open(url).await.data;
    let run: u32 = rand::random();
    let tasks = (0..8).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 0.. {
                let name = format!("{run:08x}-{task}-{i}");
                let path = Path::from(format!("killed/dir{}/{name}", i % 5));
                println!("= begin {path}");
                let data = content(&name).into();
                store.put_opts(&path, data, PutMode::Create.into()).await.expect("created");
                println!("= there {path}");
                if i % 3 == 0 {
                    println!("= begin {path}");
                    store.delete(&path).await.expect("deleted");
                    println!("= gone {path}");
                }
            }
        })
    });
    futures::future::join_all(tasks.collect::<Vec<_>>()).await;
}

#[test]
fn the_child_that_is_killed() {
    let Ok(url) = std::env::var(CHILD_ENV) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(child(&url));
}

/// Runs a child for a while, kills it, and adds what it said.
fn run_and_kill(url: &str, time: Duration, known: &mut BTreeMap<String, Known>) {
    let exe = std::env::current_exe().expect("this program");
    let mut child = Command::new(exe)
        .args(["--exact", "the_child_that_is_killed", "--nocapture", "--test-threads=1"])
        .env(CHILD_ENV, url)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let stdout = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        BufReader::new(stdout).lines().map_while(Result::ok).collect::<Vec<String>>()
    });
    std::thread::sleep(time);
    child.kill().expect("killed");
    child.wait().expect("ended");
    for line in reader.join().expect("no panic") {
        let Some((what, path)) = line.strip_prefix("= ").and_then(|l| l.split_once(' ')) else {
            continue;
        };
        let state = match what {
            "there" => Known::There,
            "gone" => Known::Gone,
            _ => Known::Open,
        };
        known.insert(path.to_owned(), state);
    }
}

async fn check(store: &dyn ObjectStore, known: &BTreeMap<String, Known>) {
    let listed: Vec<_> = store.list(None).try_collect().await.expect("a listing");
    let listed: BTreeSet<String> = listed.into_iter().map(|o| o.location.to_string()).collect();
    for (path, state) in known {
        let got = store.get(&Path::from(path.as_str())).await;
        match got {
            Ok(found) => {
                assert_ne!(*state, Known::Gone, "{path} came back");
                let name = path.rsplit('/').next().expect("a name");
                let bytes = found.bytes().await.expect("bytes");
                assert!(bytes == content(name), "{path} is not whole");
                assert!(*state == Known::Open || listed.contains(path), "{path} is not listed");
            }
            Err(error) => {
                assert_eq!(kind(&error), Kind::NotFound, "{error}");
                assert_ne!(*state, Known::There, "{path} is lost");
                assert!(!listed.contains(path), "{path} is listed and not there");
            }
        }
    }
    for path in &listed {
        assert!(known.contains_key(path), "{path} comes from nowhere");
    }
}

async fn kill_rounds(url: &str) {
    let mut known = BTreeMap::new();
    for round in 0..ROUNDS {
        let time = Duration::from_millis(500 + u64::from(round) * 170);
        tokio::task::block_in_place(|| run_and_kill(url, time, &mut known));
        let store = open(url).await;
        check(&store.data, &known).await;
        if let Some(report) = store.scan(true).await.expect("scanned") {
            eprintln!("{report:?}");
        }
        check(&store.data, &known).await;
    }
    let there = known.values().filter(|state| **state == Known::There).count();
    let open = known.values().filter(|state| **state == Known::Open).count();
    eprintln!("{} objects, {there} acknowledged, {open} left open by {ROUNDS} kills", known.len());
    assert!(there > 50, "{there}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_nothing_acknowledged_in_a_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    kill_rounds(&format!("file://{}", dir.path().display())).await;
    let tmp = dir.path().join(".yadokari/tmp");
    assert_eq!(std::fs::read_dir(tmp).expect("read").count(), 0, "leftovers were swept");
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_nothing_acknowledged_in_ceph_and_hide_nothing_from_listings() {
    let run: u32 = rand::random();
    kill_rounds(&shared_url(&format!("kill-{run:x}"))).await;
}

/// A small file system of its own, gone with the test.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(size: &str) -> Tmpfs {
        let dir = tempfile::tempdir().expect("a directory");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .status()
            .expect("mount runs");
        assert!(status.success(), "mounting a tmpfs needs root: run this test as root");
        Tmpfs(dir)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(status.is_ok_and(|status| status.success()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_data_fails_while_metadata_and_deletes_go_on() {
    let disk = Tmpfs::new("48m");
    let url: StoreUrl = format!("file://{}", disk.0.path().display()).parse().expect("a URL");
    let options = StoreOptions { reserve_bytes: Some(8 << 20), ..StoreOptions::default() };
    let store = Store::open(&url, &options).await.expect("a store");
    let mut written = 0;
    let error = loop {
        let path = Path::from(format!("data/{written}"));
        match store.data.put(&path, vec![1u8; 1 << 20].into()).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(kind(&error), Kind::NoSpace, "{error}");
    assert!((30..40).contains(&written), "{written}");
    // Some last blocks may take small data still; then it is refused as well.
    let mut small = 0;
    while store
        .data
        .put(&Path::from(format!("small/{small}")), vec![1u8; 4096].into())
        .await
        .is_ok()
    {
        small += 1;
    }
    for i in 0..20 {
        let path = Path::from(format!("log/{i}"));
        store.meta.put(&path, vec![1u8; 100_000].into()).await.expect("metadata passes");
    }
    for i in 0..written {
        store.data.delete(&Path::from(format!("data/{i}"))).await.expect("deleting passes");
    }
    // The reserve is full again: the same game once more.
    for i in 0..written {
        let path = Path::from(format!("data/{i}"));
        if store.data.put(&path, vec![1u8; 1 << 20].into()).await.is_err() {
            assert!(i > 20, "{i}");
            break;
        }
    }
    store.meta.put(&"log/last".into(), vec![1u8; 1 << 20].into()).await.expect("metadata passes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_put_in_a_directory_costs() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&format!("file://{}", dir.path().display())).await.data;
    for (size, count) in [(1usize << 10, 300u32), (8 << 20, 10)] {
        // Beside it, what the file system asks for the same: a file, its data and its directory.
        let plain = dir.path().join(".plain");
        let bytes = vec![1u8; size];
        let start = Instant::now();
        for i in 0..count {
            use std::io::Write;
            std::fs::create_dir_all(&plain).expect("made");
            let name = plain.join(i.to_string());
            let mut file = std::fs::File::create(&name).expect("created");
            file.write_all(&bytes).expect("written");
            file.sync_data().expect("synced");
            std::fs::rename(&name, plain.join(format!("{i}.done"))).expect("renamed");
            std::fs::File::open(&plain).expect("opened").sync_all().expect("synced");
        }
        let floor = start.elapsed() / count;
        let start = Instant::now();
        for i in 0..count {
            let path = Path::from(format!("cost/{size}/{i}"));
            store.put(&path, bytes.clone().into()).await.expect("put");
        }
        let put = start.elapsed() / count;
        let start = Instant::now();
        for i in 0..count {
            store
                .get(&Path::from(format!("cost/{size}/{i}")))
                .await
                .expect("got")
                .bytes()
                .await
                .expect("bytes");
        }
        let get = start.elapsed() / count;
        eprintln!(
            "{size} bytes: put {put:?} (write, fdatasync, rename, fsync: {floor:?}), get {get:?}"
        );
    }
}
