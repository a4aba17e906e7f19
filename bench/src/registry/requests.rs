//! Many small requests: one thread drives 64 connections, each with one request at a time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Measured;
use super::source::{IMAGE, Source, digest, manifest};
use super::wire::{Peer, Wire};
use crate::results::Better;
use crate::size::Size;

const CONNECTIONS: usize = 64;
const TAG: &str = "1.0";

pub fn run(measured: &mut Measured<'_>, size: Size) -> Result<()> {
    let peer = measured.registry.peer();
    let repo = measured.registry.repo("small");
    let layers: Vec<Source> = (0..5).map(|_| Source::fresh(1000)).collect();
    let config = Source::fresh(1000);
    let text = manifest(&config, &layers);
    let mut wire = Wire::open(&peer)?;
    for blob in layers.iter().chain([&config]) {
        wire.push(&repo, blob)?;
    }
    wire.put_manifest(&repo, TAG, &text)?;
    let time = Duration::from_millis(size.of(5000, 3000, 300));
    let digest = digest(&text);
    for (method, how, reference) in [
        ("GET", "by tag", TAG),
        ("GET", "by digest", digest.as_str()),
        ("HEAD", "by tag", TAG),
        ("HEAD", "by digest", digest.as_str()),
    ] {
        let target = format!("/v2/{repo}/manifests/{reference}");
        let rate = rate(&peer, method, &target, time)?;
        measured.note(&format!("{method} {how}"), "1/s", Better::Higher, rate);
    }
    Ok(())
}

/// Requests per second.
fn rate(peer: &Peer, method: &str, target: &str, time: Duration) -> Result<f64> {
    let head = peer.head(method, target, &[("Accept", IMAGE)]) + "\r\n";
    let is_head = method == "HEAD";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // A moment for caches on both sides.
        hammer(peer, &head, is_head, time / 10).await?;
        let from = Instant::now();
        let count = hammer(peer, &head, is_head, time).await?;
        Ok(count as f64 / from.elapsed().as_secs_f64())
    })
}

async fn hammer(peer: &Peer, head: &str, is_head: bool, time: Duration) -> Result<u64> {
    let until = Instant::now() + time;
    let all = (0..CONNECTIONS).map(|_| one(peer, head, is_head, until));
    let counts = futures::future::try_join_all(all).await?;
    Ok(counts.into_iter().sum())
}

async fn one(peer: &Peer, head: &str, is_head: bool, until: Instant) -> Result<u64> {
    let mut stream = TcpStream::connect(peer.address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 32 << 10];
    let mut count = 0;
    while Instant::now() < until {
        stream.write_all(head.as_bytes()).await?;
        answer(&mut stream, &mut buffer, is_head).await?;
        count += 1;
    }
    Ok(count)
}

async fn answer(stream: &mut TcpStream, buffer: &mut [u8], is_head: bool) -> Result<()> {
    let mut filled = 0;
    let mut wanted = usize::MAX;
    while filled < wanted {
        ensure!(filled < buffer.len(), "an answer is too long");
        let read = stream.read(&mut buffer[filled..]).await?;
        ensure!(read > 0, "the registry closed the connection");
        filled += read;
        if wanted == usize::MAX
            && let Some(end) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n")
        {
            let head = std::str::from_utf8(&buffer[..end]).context("a head")?;
            ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
            wanted = end + 4 + if is_head { 0 } else { length(head)? };
        }
    }
    Ok(())
}

fn length(head: &str) -> Result<usize> {
    let value = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    value.context("no Content-Length")
}
