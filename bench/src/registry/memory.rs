//! Memory of the registry with many large transfers under way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::Measured;
use super::source::Source;
use super::wire::{Body, Peer, Wire};
use crate::results::Better;
use crate::size::Size;
use crate::usage;

const TRANSFERS: usize = 32;
const GIB: u64 = 1 << 30;
/// Pushes end when so much of them went together: the store in memory that Ceph has here holds
/// 8 GiB.
const PUSHED_MAX: u64 = 5 * GIB;

pub fn run(measured: &mut Measured<'_>, size: Size) -> Result<()> {
    let time = Duration::from_millis(size.of(15_000, 8000, 300));
    let peer = measured.registry.peer();
    let repo = measured.registry.repo("crowd");
    let blob = Source::fresh(size.of(GIB, 256 << 20, 4 << 20));
    Wire::open(&peer)?.push(&repo, &blob)?;
    let pids = measured.registry.pids();
    for (name, pushes) in [("32 pushes at once", true), ("32 pulls at once", false)] {
        usage::reset_peaks(&pids);
        let (bytes, took) = crowd(&peer, &repo, &blob, pushes, time)?;
        let peak = usage::peak_mib(&pids);
        measured.note(&format!("memory with {name}"), "MiB", Better::Lower, peak);
        let rate = bytes as f64 / (1 << 20) as f64 / took.as_secs_f64();
        measured.note(&format!("{name}, together"), "MiB/s", Better::Higher, rate);
    }
    Ok(())
}

/// Lets so many transfers of 1 GiB run for some time and breaks them off; bytes that went, and
/// how long that took.
fn crowd(
    peer: &Peer,
    repo: &str,
    blob: &Source,
    pushes: bool,
    time: Duration,
) -> Result<(u64, Duration)> {
    let (bytes, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let started = Instant::now();
    let one = || match pushes {
        true => push(peer, repo, &bytes, &over),
        false => pull(peer, repo, blob, &bytes, &over),
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..TRANSFERS).map(|_| scope.spawn(one)).collect();
        let enough = || pushes && bytes.load(Ordering::Relaxed) >= PUSHED_MAX;
        while started.elapsed() < time && !enough() {
            std::thread::sleep(Duration::from_millis(10));
        }
        over.store(true, Ordering::Relaxed);
        for handle in running {
            match handle.join() {
                Ok(done) => done?,
                Err(_) => bail!("a client panicked"),
            }
        }
        anyhow::Ok(())
    })?;
    Ok((bytes.into_inner(), started.elapsed()))
}

fn push(peer: &Peer, repo: &str, bytes: &AtomicU64, over: &AtomicBool) -> Result<()> {
    let begin = format!("/v2/{repo}/blobs/uploads/");
    let begun = Wire::open(peer)?.call("POST", &begin, Body::None)?.is(202)?;
    let at = begun.location.unwrap_or_default();
    let at = at
        .strip_prefix("http://")
        .map_or(at.as_str(), |rest| rest.find('/').map_or("/", |from| &rest[from..]));
    let len = GIB.to_string();
    let headers = [("Content-Type", "application/octet-stream"), ("Content-Length", &len)];
    let mut stream = TcpStream::connect(peer.address)?;
    stream.write_all((peer.head("PATCH", at, &headers) + "\r\n").as_bytes())?;
    let piece = vec![7u8; 256 << 10];
    let mut left = GIB;
    while left > 0 && !over.load(Ordering::Relaxed) {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        stream.write_all(&piece[..len])?;
        bytes.fetch_add(len as u64, Ordering::Relaxed);
        left -= len as u64;
    }
    refused_early(&mut stream)
}

/// Fails where the registry answered a push that is under way: it drains what it does not want,
/// and bytes that went into the drain are no rate.
fn refused_early(stream: &mut TcpStream) -> Result<()> {
    stream.set_nonblocking(true)?;
    let mut answer = [0; 512];
    match stream.read(&mut answer) {
        Ok(len) if len > 0 => {
            let answer = String::from_utf8_lossy(&answer[..len]);
            let status = answer.lines().next().unwrap_or_default();
            ensure!(status.contains(" 20"), "the registry answered a push with {status}");
            Ok(())
        }
        _ => Ok(()),
    }
}

fn pull(
    peer: &Peer,
    repo: &str,
    blob: &Source,
    bytes: &AtomicU64,
    over: &AtomicBool,
) -> Result<()> {
    let path = format!("/v2/{repo}/blobs/{}", blob.digest());
    let mut piece = vec![0u8; 256 << 10];
    while !over.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(peer.address)?;
        let head = peer.head("GET", &path, &[("Connection", "close")]) + "\r\n";
        stream.write_all(head.as_bytes())?;
        while !over.load(Ordering::Relaxed) {
            let read = stream.read(&mut piece)?;
            if read == 0 {
                break;
            }
            bytes.fetch_add(read as u64, Ordering::Relaxed);
        }
    }
    Ok(())
}
