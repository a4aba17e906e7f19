//! Creates, stats and unlinks of empty files by several threads, each in a directory of its own,
//! as mdtest counts them.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use super::{Workload, nothing};
use crate::place::Place;
use crate::results::Better;
use crate::size::Size;

pub const WORKLOAD: Workload = Workload {
    name: "meta",
    about: "creates, stats and unlinks a second, by number of threads",
    rounds_max: 3,
    is_quick: true,
    prepare: nothing,
    run,
};

fn run(place: &mut Place<'_>, size: Size) -> Result<()> {
    let files = size.of(8_000, 2_000, 40);
    for threads in size.of(vec![1, 2, 4, 8], vec![1, 4], vec![2]) {
        let root = place.user.home.join(format!("meta-{threads}"));
        for n in 0..threads {
            std::fs::create_dir_all(root.join(n.to_string()))?;
        }
        let each = files / threads;
        for (name, work) in [
            ("create", (|path: &Path| std::fs::File::create(path).map(drop)) as fn(&Path) -> _),
            ("stat", |path| path.symlink_metadata().map(drop)),
            ("unlink", |path| std::fs::remove_file(path)),
        ] {
            let rate = rate(&root, threads, each, work)?;
            place.note(&format!("{name}, {threads} threads"), "1/s", Better::Higher, rate);
            if name == "create" {
                // What a stat is asked for is not in the kernel's caches, as with mdtest.
                place.drop_caches()?;
            }
        }
        std::fs::remove_dir_all(&root)?;
    }
    place.settle()
}

fn rate(
    root: &Path,
    threads: usize,
    each: usize,
    work: fn(&Path) -> std::io::Result<()>,
) -> Result<f64> {
    let from = Instant::now();
    std::thread::scope(|scope| {
        let run = |thread: usize| {
            let dir = root.join(thread.to_string());
            (0..each).try_for_each(|n| work(&dir.join(format!("file.{n}"))))
        };
        let all: Vec<_> = (0..threads).map(|n| scope.spawn(move || run(n))).collect();
        all.into_iter().try_for_each(|thread| {
            thread.join().ok().context("a thread panicked")?.context("a file")
        })
    })?;
    Ok((threads * each) as f64 / from.elapsed().as_secs_f64())
}
