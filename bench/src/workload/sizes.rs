//! Writing, random reading and random writing by the size of the file: the charts of the papers
//! that this system comes from.

use anyhow::Result;

use super::Workload;
use crate::input;
use crate::place::Place;
use crate::results::Better;
use crate::size::Size;
use crate::workload::random::{Job, fio};

pub const WORKLOAD: Workload = Workload {
    name: "sizes",
    about: "speed of writing, random reading and random writing by file size, 100 KB to 1 GB",
    rounds_max: 2,
    is_quick: false,
    prepare: |size| bytes(size).iter().try_for_each(|bytes| input::random(*bytes).map(drop)),
    run,
};

/// Sizes of files.
pub const SIZES: [u64; 5] = [100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

fn bytes(size: Size) -> &'static [u64] {
    &SIZES[..size.of(5, 4, 2)]
}

/// As axes name it.
pub fn size_label(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{} GB", bytes / 1_000_000_000),
        1_000_000.. => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} KB", bytes / 1000),
    }
}

fn run(place: &mut Place<'_>, size: Size) -> Result<()> {
    for &bytes in bytes(size) {
        let source = input::random(bytes)?;
        input::memory_at_hand((bytes * 2).max(64 << 20));
        let label = size_label(bytes);
        // Small files are written several times, so that starting dd is not what is measured.
        let times = (20_000_000 / bytes).clamp(1, 20);
        let script = format!(
            "for n in $(seq {times}); do cat {} > file.$n; done; sync -d file.*",
            source.display()
        );
        let took = crate::place::timed(place.user.command("bash"), "", &script, size.limit())?.0;
        if let crate::place::Took::Seconds(seconds) = took {
            let speed = (bytes * times) as f64 / 1e6 / seconds;
            place.note(&format!("write {label}"), "MB/s", Better::Higher, speed);
        }
        let seconds = size.of(3, 1, 1);
        place.sh("mv file.1 file; rm -f file.*")?;
        for (name, write) in [("random read", false), ("random write", true)] {
            let job = Job { write, depth: 1, block: "8k", file: "file", bytes, seconds };
            place.drop_caches()?;
            let rate = fio(place, &job)?;
            place.note(&format!("{name} {label}"), "MB/s", Better::Higher, rate * 8192.0 / 1e6);
        }
        place.sh("rm file")?;
    }
    place.settle()
}
