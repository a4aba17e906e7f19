//! Large blobs and whole images, there and back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Result, bail};

use super::Measured;
use super::source::{Source, manifest};
use super::wire::{Peer, Wire};
use crate::results::Better;
use crate::size::Size;

/// As Podman and crane have it, more or less.
const CONNECTIONS: usize = 4;
const MIB: f64 = (1 << 20) as f64;

pub fn run(measured: &mut Measured<'_>, size: Size) -> Result<()> {
    let peer = measured.registry.peer();
    let repo = measured.registry.repo("transfer");
    let blob = Source::fresh(size.of(1 << 30, 256 << 20, 4 << 20));
    let mib = blob.len() as f64 / MIB;
    let mut wire = Wire::open(&peer)?;
    let from = Instant::now();
    wire.push(&repo, &blob)?;
    measured.note("push of 1 GiB", "MiB/s", Better::Higher, mib / from.elapsed().as_secs_f64());
    let from = Instant::now();
    wire.pull(&repo, &blob)?;
    measured.note("pull of 1 GiB", "MiB/s", Better::Higher, mib / from.elapsed().as_secs_f64());
    drop(wire);

    let layer = size.of(10 << 20, 4 << 20, 64 << 10);
    let layers: Vec<Source> = (0..30).map(|_| Source::fresh(layer)).collect();
    let config = Source::fresh(3000);
    let text = manifest(&config, &layers);
    let from = Instant::now();
    side_by_side(&peer, &layers, |wire, layer| wire.push(&repo, layer))?;
    let mut wire = Wire::open(&peer)?;
    wire.push(&repo, &config)?;
    wire.put_manifest(&repo, "image", &text)?;
    measured.note("push of 30 layers", "s", Better::Lower, from.elapsed().as_secs_f64());
    let from = Instant::now();
    wire.fetch("GET", &format!("/v2/{repo}/manifests/image"))?.is(200)?;
    wire.pull(&repo, &config)?;
    side_by_side(&peer, &layers, |wire, layer| wire.pull(&repo, layer))?;
    measured.note("pull of 30 layers", "s", Better::Lower, from.elapsed().as_secs_f64());
    Ok(())
}

/// Takes all of `items` over some connections.
fn side_by_side<T: Sync>(
    peer: &Peer,
    items: &[T],
    work: impl Fn(&mut Wire, &T) -> Result<()> + Sync,
) -> Result<()> {
    over(CONNECTIONS, peer, items, work)
}

/// The same over as many connections as one likes.
pub fn over<T: Sync>(
    connections: usize,
    peer: &Peer,
    items: &[T],
    work: impl Fn(&mut Wire, &T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let one = || -> Result<()> {
        let mut wire = Wire::open(peer)?;
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(&mut wire, item)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..connections).map(|_| scope.spawn(one)).collect();
        for handle in running {
            match handle.join() {
                Ok(done) => done?,
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(())
    })
}
