//! Quotas as programs meet them: exact to the byte and the inode, and never in the way of `rm`.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use yadokari_tests::instance::Instance;
use yadokari_tests::stores::StoreKind;
use yadokari_tests::{on_every_store, wait};

const MIB: u64 = 1 << 20;

on_every_store! {
    writing_stops_at_the_very_byte_and_rm_makes_room => bytes_are_exact;
    parallel_writers_never_get_more_than_the_quota => parallel_writers;
    making_files_stops_at_the_very_inode => inodes_are_exact;
    holes_and_renames_cost_nothing_and_links_no_bytes => what_is_charged;
}

/// A home with limits; gives the instance, the directory and the name.
fn limited(
    store: StoreKind,
    bytes: u64,
    inodes: u64,
) -> Result<(Instance, std::path::PathBuf, String)> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    let name = user.name.clone();
    let home = user.home.clone();
    // Exactly so much more than what the skeleton took, which the first look inside brings.
    fs::read_dir(&home)?.count();
    let used = instance.json(&["quota", &name])?;
    let bytes = used["bytes"].as_u64().context("bytes")? + bytes;
    let inodes = used["inodes"].as_u64().context("inodes")? + inodes;
    let (bytes, inodes) = (bytes.to_string(), inodes.to_string());
    instance.ok(&["home", "set-quota", &name, "--quota", &bytes, "--inodes", &inodes])?;
    // The user goes when this returns; the home, owned by a number, stays.
    Ok((instance, home, name))
}

fn is_over(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::QuotaExceeded
}

fn fill(path: &Path, most: u64) -> Result<u64> {
    let mut file = File::create(path)?;
    let block = vec![b'x'; 10_000];
    let mut written = 0;
    while written < most {
        match file.write(&block) {
            Ok(count) => written += count as u64,
            Err(error) if is_over(&error) => return Ok(written),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(written)
}

fn bytes_are_exact(store: StoreKind) -> Result<()> {
    let (instance, home, name) = limited(store, 3 * MIB + 123, 1000)?;
    let written = fill(&home.join("big"), 10 * MIB)?;
    ensure!(written == 3 * MIB + 123, "{written} bytes fitted");
    let used = instance.json(&["quota", &name])?;
    ensure!(used["bytes"] == used["bytes_limit"], "{used}");
    let df = yadokari_tests::process::ok(
        std::process::Command::new("df").args(["-B1", "--output=avail"]).arg(&home),
    )?;
    ensure!(df.lines().last().map(str::trim) == Some("0"), "df says {df}");
    // Overwriting needs no more room; one byte behind the end does.
    let file = OpenOptions::new().write(true).open(home.join("big"))?;
    file.write_all_at(b"over", 100)?;
    file.sync_all()?;
    let more = file.write_at(b"+", written).expect_err("there is no room");
    ensure!(is_over(&more), "{more}");
    file.set_len(written - 5)?;
    ensure!(file.write_at(b"123456789", written - 5)? == 5, "five bytes are free again");
    fs::remove_file(home.join("big"))?;
    drop(file);
    ensure!(fill(&home.join("again"), MIB)? >= MIB, "rm made no room");
    instance.fsck_is_clean()
}

fn parallel_writers(store: StoreKind) -> Result<()> {
    let (instance, home, name) = limited(store, 5 * MIB, 1000)?;
    let written: u64 = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|number| {
                let path = home.join(format!("w{number}"));
                scope.spawn(move || fill(&path, 10 * MIB))
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().expect("no panic")).sum::<Result<u64>>()
    })?;
    ensure!(written == 5 * MIB, "{written} bytes fitted into {}", 5 * MIB);
    let used = instance.json(&["quota", &name])?;
    ensure!(used["bytes"] == used["bytes_limit"], "{used}");
    for number in 0..8 {
        fs::remove_file(home.join(format!("w{number}")))?;
    }
    let left = instance.json(&["quota", &name])?;
    let difference =
        used["bytes"].as_u64().context("bytes")? - left["bytes"].as_u64().context("bytes")?;
    ensure!(difference == written, "{difference} bytes came back of {written}");
    Ok(())
}

fn inodes_are_exact(store: StoreKind) -> Result<()> {
    let (_instance, home, _) = limited(store, MIB, 50)?;
    for number in 0..50 {
        File::create(home.join(format!("f{number}")))?;
    }
    let error = File::create(home.join("more")).expect_err("no inode is left");
    ensure!(is_over(&error), "{error}");
    let error = fs::create_dir(home.join("more")).expect_err("no inode is left");
    ensure!(is_over(&error), "{error}");
    // A name is no inode.
    fs::hard_link(home.join("f1"), home.join("link"))?;
    fs::rename(home.join("f2"), home.join("renamed"))?;
    fs::remove_file(home.join("f3"))?;
    // The inode goes once the kernel says that nobody holds it open, which it does soon after.
    wait::until("an inode to be free after rm", Duration::from_secs(5), || {
        File::create(home.join("more")).ok()
    })?;
    Ok(())
}

fn what_is_charged(store: StoreKind) -> Result<()> {
    let (instance, home, name) = limited(store, 2 * MIB, 100)?;
    let used =
        || -> Result<u64> { instance.json(&["quota", &name])?["bytes"].as_u64().context("bytes") };
    let before = used()?;
    let sparse = File::create(home.join("sparse"))?;
    sparse.set_len(100 << 30)?;
    ensure!(used()? == before, "a hole was charged");
    sparse.write_all_at(&[1; 4096], 50 << 30)?;
    ensure!(used()? == before + 4096, "{} for 4096 bytes in a hole", used()? - before);
    fs::hard_link(home.join("sparse"), home.join("link"))?;
    fs::rename(home.join("sparse"), home.join("moved"))?;
    ensure!(used()? == before + 4096, "a name was charged");
    // A clone is charged in full, whatever it shares.
    let (data, clone) = (home.join("data"), home.join("clone"));
    fs::write(&data, vec![7; 300_000])?;
    fs::copy(&data, &clone)?;
    ensure!(used()? == before + 4096 + 600_000, "{} after a clone", used()? - before);
    fs::remove_file(&data)?;
    ensure!(used()? == before + 4096 + 300_000, "{} after its source went", used()? - before);
    fs::remove_file(&clone)?;
    fs::remove_file(home.join("link"))?;
    fs::remove_file(home.join("moved"))?;
    drop(sparse);
    ensure!(used()? == before, "{} bytes are left over", used()? - before);
    Ok(())
}
