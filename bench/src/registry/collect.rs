//! Pushes one by one, with their times: as usual, and while collection runs without a pause.

use std::time::Instant;

use anyhow::Result;

use super::Measured;
use super::source::{Source, manifest};
use super::wire::Wire;
use crate::results::Better;
use crate::size::Size;

/// A layer that becomes a part of its own.
const LAYER_BYTES: u64 = 200_000;

pub fn run(measured: &mut Measured<'_>, size: Size) -> Result<()> {
    let pushes = size.of(500, 150, 5);
    for (collecting, name) in [(false, "as usual"), (true, "while it collects")] {
        if collecting && !measured.registry.collect_always()? {
            return Ok(());
        }
        let mut times = pushed(measured, pushes)?;
        times.sort_by(f64::total_cmp);
        for (part, which) in [(50, "median"), (99, "p99")] {
            let value = times[(times.len() - 1) * part / 100];
            let name = format!("an image pushed {name}, {which}");
            measured.note(&name, "ms", Better::Lower, value);
        }
    }
    measured.registry.collect_never()
}

/// Milliseconds of each push of a small image: three blobs and a manifest.
fn pushed(measured: &Measured<'_>, count: usize) -> Result<Vec<f64>> {
    let repo = measured.registry.repo("steady");
    let mut wire = Wire::open(&measured.registry.peer())?;
    let mut times = Vec::new();
    for n in 0..count {
        let layers = [Source::fresh(LAYER_BYTES), Source::fresh(5000)];
        let config = Source::fresh(1500);
        let text = manifest(&config, &layers);
        let from = Instant::now();
        for blob in layers.iter().chain([&config]) {
            wire.push(&repo, blob)?;
        }
        // Few tags, pushed over and over, so that images lose their last one.
        wire.put_manifest(&repo, &format!("t{}", n % 20), &text)?;
        times.push(from.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}
