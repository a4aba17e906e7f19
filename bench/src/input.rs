//! What workloads work on, made once and kept beside the tests' own: sources of crates as they
//! lie in cargo's cache of this machine, a repository, random data.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use yadokari_tests::{cache, process};

use crate::size::Size;

/// An archive of sources of crates, `size.files()` files under `src/`.
///
/// # Errors
/// Where cargo keeps no crates, or tar fails.
pub fn sources(size: Size) -> Result<PathBuf> {
    let files = size.files();
    cache::entry(&format!("bench-sources-{files}.tar"), |tar| {
        let crates = downloaded()?;
        let beside = tar.parent().context("lies in the cache")?;
        let scratch = tempfile::Builder::new().prefix(".sources-").tempdir_in(beside)?;
        unpack_until(&crates, &scratch.path().join("src"), files)?;
        process::sh(&format!(
            "cd {}; find src -type f | LC_ALL=C sort | awk \"NR <= {files}\" | tar --owner=0 --group=0 \
             -cf {} -T -; chmod 644 {1}",
            scratch.path().display(),
            tar.display()
        ))?;
        Ok(())
    })
}

/// The crates that cargo has downloaded, by name.
fn downloaded() -> Result<Vec<PathBuf>> {
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let listing = process::sh(&format!(
        "find {}/registry/cache -name '*.crate' -size -4000k | LC_ALL=C sort -t / -k 99",
        home.display()
    ))?;
    let crates: Vec<PathBuf> = listing.lines().map(PathBuf::from).collect();
    ensure!(!crates.is_empty(), "cargo keeps no crates in {}: build something", home.display());
    Ok(crates)
}

/// Unpacks crates, again under other names where there are too few.
fn unpack_until(crates: &[PathBuf], dir: &Path, files: usize) -> Result<()> {
    const COPIES_MAX: usize = 20;
    let mut count = 0;
    for copy in 0..COPIES_MAX {
        let into = dir.join(format!("part-{copy}"));
        std::fs::create_dir_all(&into)?;
        for archive in crates {
            if count >= files {
                return Ok(());
            }
            let listing = process::sh(&format!(
                "tar -C {} -xvzf {} | grep -vc '/$' || true",
                into.display(),
                archive.display()
            ))?;
            count += listing.trim().parse::<usize>().unwrap_or(0);
        }
    }
    Ok(())
}

/// A bare repository with the sources, in a history of many commits.
///
/// # Errors
/// What git said.
pub fn repository(size: Size) -> Result<PathBuf> {
    let sources = sources(size)?;
    let files = size.of(6_000, 1_000, 40);
    cache::entry(&format!("bench-repository-{files}.git"), |dir| {
        process::sh(&format!(
            r#"work=$(mktemp -d); trap 'rm -rf $work' EXIT
            tar -C $work -xf {sources}; cd $work
            export GIT_AUTHOR_DATE=@1700000000+0000 GIT_COMMITTER_DATE=@1700000000+0000
            git init -q -b main .; git config user.name A; git config user.email a@example.org
            find src -type f | LC_ALL=C sort | awk "NR <= {files}" > list
            split -n l/20 list part.
            for part in part.*; do
                git add --pathspec-from-file=$part -f; git commit -q -m $part
                head -n 30 $part | while read -r f; do echo changed >> "$f"; done
                git commit -q -a -m "$part, changed" || true
            done
            git clone -q --bare . {dir}; chmod -R a+rX {dir}"#,
            sources = sources.display(),
            dir = dir.display()
        ))
        .map(drop)
    })
}

/// numpy and what it needs, downloaded once by pip.
///
/// # Errors
/// What pip said.
pub fn wheels() -> Result<PathBuf> {
    cache::entry("wheels", |dir| {
        process::sh(&format!(
            "/usr/bin/python3 -m venv {0}.venv; {0}.venv/bin/pip download --quiet --dest {0} \
             numpy; rm -rf {0}.venv; chmod -R a+rX {0}",
            dir.display()
        ))
        .map(drop)
    })
}

/// The toolchain where plain users can reach it.
///
/// # Errors
/// Where it cannot be copied.
pub fn toolchain() -> Result<PathBuf> {
    cache::entry("rust", |dir| {
        process::sh(&format!(
            "root=$(rustc --print sysroot); cp -al \"$root\" {0} 2>/dev/null || \
             {{ rm -rf {0}; cp -a \"$root\" {0}; }}; chmod a+rx {0}",
            dir.display()
        ))
        .map(drop)
    })
}

/// Has a file, or all below a directory, in the page cache: whoever comes after caches were
/// dropped shall not wait for the disk of the inputs.
///
/// # Errors
/// Reading.
pub fn at_hand(path: &Path) -> Result<()> {
    let path = path.display();
    process::sh(&format!("find '{path}' -type f -exec cat {{}} + > /dev/null")).map(drop)
}

/// Takes memory and gives it back. A virtual machine may have left what is free to its host: to
/// have it back costs up to 7 us a page, which the first who asks would pay.
pub fn memory_at_hand(bytes: u64) {
    let pages = vec![1u8; usize::try_from(bytes).unwrap_or(0)];
    drop(std::hint::black_box(pages));
}

/// A file of random bytes in memory, so that reading it costs nothing that is measured.
///
/// # Errors
/// Where it cannot be written.
pub fn random(bytes: u64) -> Result<PathBuf> {
    let path = PathBuf::from(format!("/dev/shm/yadokari-bench-{bytes}"));
    if path.metadata().is_ok_and(|meta| meta.len() == bytes) {
        return Ok(path);
    }
    process::sh(&format!(
        "head -c {bytes} /dev/urandom > {0}.new; chmod 644 {0}.new; mv {0}.new {0}",
        path.display()
    ))?;
    Ok(path)
}
