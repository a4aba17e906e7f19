//! Memory of one gateway with 32 large transfers under way, in every shape that clients give
//! them: it stays bounded by the budget, whatever the lengths and however slow the readers.
//!
//! Every client holds its transfer open until all have moved their bytes, so that really all are
//! under way. What counts is memory of the process's own: an unoptimised program has more pages
//! of code than it ever will in use. `yadokari-bench registry memory` measures the whole.

use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use yadokari_tests::gateway::{Options, Registry};
use yadokari_tests::http;
use yadokari_tests::image::{Blob, Client};
use yadokari_tests::stores::StoreKind;

const REPO: &str = "ada/crowd";
const TRANSFERS: usize = 32;
const GIB: u64 = 1 << 30;
/// What each transfer moves before it waits for the others: all together twenty times the budget.
const MOVED_BYTES: usize = 24 << 20;
/// The blob that is pulled; each reads the beginning, or a range of its own.
const BLOB_BYTES: usize = 96 << 20;
/// What the process may have of its own.
const RESIDENT_BYTES_MAX: u64 = 128 << 20;
/// What a slow reader takes before it takes no more.
const SLOW_BYTES: usize = 256 << 10;

/// A way to move bytes.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// PATCH of 1 GiB, its length announced.
    Push,
    /// PATCH in chunks of HTTP, no length announced.
    PushChunked,
    /// GET of all.
    Pull,
    /// GET of a range.
    PullRange,
    /// GET by a reader that soon takes no more.
    PullSlow,
}

/// The shape of each of a crowd, by its number.
type ShapeOf = fn(usize) -> Shape;

/// Bytes of the process's own that are resident now.
fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

fn push(client: &Client, at: SocketAddr, chunked: bool, all: &Barrier) -> Result<()> {
    let location = client.begin(REPO)?;
    let mut request = client.request("PATCH", &location);
    request = match chunked {
        true => request.chunked(),
        false => request.header("Content-Length", GIB.to_string()),
    };
    let mut stream = http::connect(at)?;
    stream.write_all(request.head(at).as_bytes())?;
    let piece = vec![7u8; 200_000];
    let mut sent = 0;
    while sent < MOVED_BYTES {
        if chunked {
            write!(stream, "{:x}\r\n", piece.len())?;
        }
        stream.write_all(&piece)?;
        if chunked {
            stream.write_all(b"\r\n")?;
        }
        sent += piece.len();
    }
    all.wait();
    Ok(())
}

fn pull(
    client: &Client,
    at: SocketAddr,
    digest: &str,
    range: Option<usize>,
    bytes: usize,
    all: &Barrier,
) -> Result<()> {
    let mut request = client.request("GET", &format!("{REPO}/blobs/{digest}"));
    if let Some(from) = range {
        request = request.header("Range", format!("bytes={from}-"));
    }
    let mut stream = http::connect(at)?;
    stream.write_all(request.head(at).as_bytes())?;
    let mut stream = BufReader::new(stream);
    let mut piece = vec![0; 200_000];
    let mut left = bytes;
    while left > 0 {
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "the gateway ended a transfer");
        left = left.saturating_sub(read);
    }
    all.wait();
    Ok(())
}

/// Runs so many transfers at once; the most that was resident.
fn crowd(registry: &Registry, digest: &str, shape: ShapeOf) -> Result<u64> {
    let pid = registry.pid(0).context("a process")?;
    let (at, client) = (registry.one(), Client::new(registry.one(), "ada"));
    let (all, over, most) = (Barrier::new(TRANSFERS), AtomicBool::new(false), AtomicU64::new(0));
    let one = |n: usize| match shape(n) {
        Shape::Push => push(&client, at, false, &all),
        Shape::PushChunked => push(&client, at, true, &all),
        Shape::Pull => pull(&client, at, digest, None, MOVED_BYTES, &all),
        Shape::PullRange => pull(&client, at, digest, Some(n << 20), MOVED_BYTES, &all),
        Shape::PullSlow => pull(&client, at, digest, None, SLOW_BYTES, &all),
    };
    // Who fails must not leave the others waiting.
    let or_wait = |n| {
        one(n).inspect_err(|_| {
            all.wait();
        })
    };
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(resident(pid)?, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
            anyhow::Ok(())
        });
        let or_wait = &or_wait;
        let running: Vec<_> = (0..TRANSFERS).map(|n| scope.spawn(move || or_wait(n))).collect();
        let ended: Vec<_> = running.into_iter().map(|handle| handle.join()).collect();
        over.store(true, Ordering::Relaxed);
        ended.into_iter().chain([watching.join()]).try_for_each(|ended| match ended {
            Ok(done) => done,
            Err(_) => bail!("a thread panicked"),
        })
    })?;
    Ok(most.into_inner())
}

#[test]
fn memory_is_bounded_with_32_large_transfers_of_every_shape() -> Result<()> {
    let registry = Registry::process(StoreKind::File, Options::default())?;
    let blob = Blob::random(BLOB_BYTES, 1);
    Client::new(registry.one(), "ada").push_blob(REPO, &blob)?;
    let digest = blob.digest.clone();
    drop(blob);
    let shapes: [(&str, ShapeOf); 6] = [
        ("pushes", |_| Shape::Push),
        ("chunked pushes", |_| Shape::PushChunked),
        ("pulls", |_| Shape::Pull),
        ("pulls of ranges", |_| Shape::PullRange),
        ("slow pulls", |_| Shape::PullSlow),
        ("all of them", |n| match n % 5 {
            0 => Shape::Push,
            1 => Shape::PushChunked,
            2 => Shape::Pull,
            3 => Shape::PullRange,
            _ => Shape::PullSlow,
        }),
    ];
    for (name, shape) in shapes {
        let bytes = crowd(&registry, &digest, shape).with_context(|| registry.log_tail())?;
        eprintln!("32 {name} at once: {} MiB of its own", bytes >> 20);
        ensure!(bytes < RESIDENT_BYTES_MAX, "32 {name}: {} MiB were resident", bytes >> 20);
    }
    Ok(())
}
