//! Long lists: the tags of one repository, the repositories of a registry.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::Measured;
use super::source::{Source, manifest};
use super::transfer::over;
use super::wire::{Peer, Wire};
use crate::results::Better;
use crate::size::Size;

/// Those who fill a registry do it side by side.
const CONNECTIONS: usize = 16;
/// How often a page is asked for; the slowest but a few count.
const ASKED: usize = 60;
const PAGE: usize = 100;
/// Who may see few repositories sees these.
const SHARED: [usize; 3] = [7, 1700, 4242];

pub fn tags(measured: &mut Measured<'_>, size: Size) -> Result<()> {
    let count = size.of(10_000, 1000, 30);
    let peer = measured.registry.peer();
    let repo = measured.registry.repo("tags");
    let config = Source::fresh(100);
    let text = manifest(&config, &[]);
    Wire::open(&peer)?.push(&repo, &config)?;
    let all: Vec<String> = (0..count).map(|n| format!("v{n:05}")).collect();
    let from = Instant::now();
    over(CONNECTIONS, &peer, &all, |wire, tag| wire.put_manifest(&repo, tag, &text))?;
    let rate = count as f64 / from.elapsed().as_secs_f64();
    measured.note("tags pushed, 16 at once", "1/s", Better::Higher, rate);
    let mut wire = Wire::open(&peer)?;
    let path = format!("/v2/{repo}/tags/list");
    let whole: Value = serde_json::from_slice(&wire.fetch("GET", &path)?.is(200)?.body)?;
    let listed = whole["tags"].as_array().map_or(0, Vec::len);
    ensure!(listed == count, "{listed} of {count} tags are listed");
    let slowest = slow(&mut wire, &path)?;
    measured.note("all tags of 10,000", "ms", Better::Lower, slowest);
    let middle = format!("{path}?n=1000&last=v{:05}", count / 2);
    let slowest = slow(&mut wire, &middle)?;
    measured.note("a page of 1000 tags of 10,000", "ms", Better::Lower, slowest);
    Ok(())
}

pub fn catalog(measured: &mut Measured<'_>, size: Size) -> Result<()> {
    let count = size.of(5000, 500, 20);
    let peer = measured.registry.peer();
    let config = Source::fresh(100);
    let text = manifest(&config, &[]);
    let numbers: Vec<usize> = (0..count).collect();
    let registry = &*measured.registry;
    let names: Vec<String> =
        numbers.iter().map(|n| registry.repo(&format!("many/r{n:05}"))).collect();
    let from = Instant::now();
    over(CONNECTIONS, &peer, &names, |wire, repo| {
        wire.push(repo, &config)?;
        wire.put_manifest(repo, "1", &text)
    })?;
    let rate = count as f64 / from.elapsed().as_secs_f64();
    measured.note("repositories made, 16 at once", "1/s", Better::Higher, rate);
    if let Some(all) = measured.registry.peer_who_sees_all() {
        note_catalog(measured, &all, "of 5,000 for who sees all", None)?;
    }
    let some: Vec<String> =
        SHARED.iter().filter_map(|n| names.get(n * count / 5000)).cloned().collect();
    if let Some(few) = measured.registry.peer_who_sees(&some)? {
        note_catalog(measured, &few, "of 5,000 for who sees three", Some(some.len()))?;
    }
    Ok(())
}

fn note_catalog(
    measured: &mut Measured<'_>,
    peer: &Peer,
    whose: &str,
    wanted: Option<usize>,
) -> Result<()> {
    let mut wire = Wire::open(peer)?;
    let path = format!("/v2/_catalog?n={PAGE}");
    let page: Value = serde_json::from_slice(&wire.fetch("GET", &path)?.is(200)?.body)?;
    let listed = page["repositories"].as_array().map_or(0, Vec::len);
    if let Some(wanted) = wanted {
        ensure!(listed == wanted, "{listed} repositories are seen instead of {wanted}");
    }
    ensure!(listed > 0, "an empty catalog");
    let slowest = slow(&mut wire, &path)?;
    measured.note(&format!("a page of 100 {whose}"), "ms", Better::Lower, slowest);
    Ok(())
}

/// Asks again and again; the time in milliseconds that all but the slowest twentieth take.
fn slow(wire: &mut Wire, path: &str) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..ASKED {
        let from = Instant::now();
        wire.fetch("GET", path)?.is(200)?;
        times.push(from.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() * 95 / 100])
}
