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
    fallocate_reserves_to_the_very_byte_and_holes_give_it_back => fallocate;
    attributes_are_charged_by_their_values => attributes;
    clones_are_charged_in_full_and_refused_beyond_the_quota => clones;
    a_mapping_that_overruns_the_quota_is_reported_and_not_stored => mapping;
    statvfs_inside_a_home_shows_its_quota => shown_by_statvfs;
    what_quota_says_is_what_a_walk_counts => recount;
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

fn used(instance: &Instance, name: &str) -> Result<(u64, u64)> {
    let facts = instance.json(&["quota", name])?;
    let number = |field: &str| facts[field].as_u64().with_context(|| field.to_owned());
    Ok((number("bytes")?, number("inodes")?))
}

/// A call of rustix that must say that the quota is used up.
fn over<T>(what: &str, result: rustix::io::Result<T>) -> Result<()> {
    let error = result.err().with_context(|| format!("{what} went beyond the quota"))?;
    ensure!(error == rustix::io::Errno::DQUOT, "{what}: {error}");
    Ok(())
}

fn fallocate(store: StoreKind) -> Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    let (instance, home, name) = limited(store, MIB + 77, 100)?;
    let before = used(&instance, &name)?.0;
    let file = File::create(home.join("file"))?;
    let (none, keep) = (FallocateFlags::empty(), FallocateFlags::KEEP_SIZE);
    over("one byte too many", fallocate(&file, none, 0, MIB + 78))?;
    ensure!(file.metadata()?.len() == 0, "a refused fallocate left a size");
    ensure!(used(&instance, &name)?.0 == before, "a refused fallocate was charged");
    fallocate(&file, keep, 0, MIB + 77)?;
    ensure!(file.metadata()?.len() == 0 && used(&instance, &name)?.0 == before + MIB + 77);
    over("behind it", fallocate(&file, keep, MIB + 77, 1))?;
    // What was reserved can be written without more room, and nothing else can.
    file.write_all_at(&vec![3; usize::try_from(MIB)? + 77], 0)?;
    file.sync_all()?;
    let other = fs::write(home.join("other"), "x").expect_err("there is no room");
    ensure!(is_over(&other), "{other}");
    ensure!(used(&instance, &name)?.0 == before + MIB + 77, "a reserved byte was charged twice");
    fallocate(&file, FallocateFlags::PUNCH_HOLE | keep, 4096, 8192)?;
    ensure!(used(&instance, &name)?.0 == before + MIB + 77 - 8192, "a punched hole is charged");
    file.set_len(0)?;
    file.set_len(1 << 40)?;
    ensure!(used(&instance, &name)?.0 == before, "a hole made by truncate is charged");
    instance.fsck_is_clean()
}

fn attributes(store: StoreKind) -> Result<()> {
    use rustix::fs::{XattrFlags, removexattr, setxattr};
    let (instance, home, name) = limited(store, 50_000, 100)?;
    let file = home.join("file");
    fs::write(&file, "")?;
    let before = used(&instance, &name)?.0;
    let set =
        |name: &str, bytes: usize| setxattr(&file, name, &vec![b'v'; bytes], XattrFlags::empty());
    set("user.a", 30_000)?;
    ensure!(used(&instance, &name)?.0 == before + 30_000, "for 30000 bytes");
    over("a second value", set("user.b", 20_001))?;
    over("a longer value", set("user.a", 50_001))?;
    ensure!(used(&instance, &name)?.0 == before + 30_000, "a refused value was charged");
    set("user.b", 20_000)?;
    let written = fs::write(home.join("other"), "x").expect_err("there is no room");
    ensure!(is_over(&written), "{written}");
    // Values may be replaced by shorter ones and go, even when all is used.
    set("user.a", 29_000)?;
    ensure!(used(&instance, &name)?.0 == before + 49_000, "after a replacement");
    removexattr(&file, "user.b")?;
    ensure!(used(&instance, &name)?.0 == before + 29_000, "after a removal");
    fs::remove_file(&file)?;
    wait::until("the rest to go with the file", Duration::from_secs(10), || {
        (used(&instance, &name).ok()?.0 == before).then_some(())
    })?;
    instance.fsck_is_clean()
}

fn clones(store: StoreKind) -> Result<()> {
    use rustix::fs::copy_file_range;
    let (instance, home, name) = limited(store, 2 * MIB, 100)?;
    let before = used(&instance, &name)?.0;
    let source = home.join("source");
    fs::write(&source, vec![9; 900_000])?;
    let clone = |to: &str, length: usize| -> rustix::io::Result<usize> {
        let from = File::open(&source).map_err(|_| rustix::io::Errno::NOENT)?;
        let options =
            OpenOptions::new().write(true).create(true).truncate(false).open(home.join(to));
        let to = options.map_err(|_| rustix::io::Errno::NOENT)?;
        copy_file_range(&from, Some(&mut 0), &to, Some(&mut 0), length)
    };
    ensure!(clone("one", 900_000)? == 900_000);
    ensure!(used(&instance, &name)?.0 == before + 1_800_000, "a clone is charged in full");
    // Over what it shares already it costs nothing more; beyond the quota it is refused.
    ensure!(clone("one", 900_000)? == 900_000);
    ensure!(used(&instance, &name)?.0 == before + 1_800_000, "an overwriting clone");
    match clone("two", 900_000) {
        // Part of it may be copied, as with a short write; never more than fits.
        Ok(copied) => ensure!(copied as u64 <= 2 * MIB - 1_800_000, "{copied} bytes cloned"),
        Err(error) => ensure!(error == rustix::io::Errno::DQUOT, "{error}"),
    }
    let (bytes, _) = used(&instance, &name)?;
    ensure!(bytes <= before + 2 * MIB, "{bytes} bytes are more than the limit");
    yadokari_tests::process::ok(
        std::process::Command::new("cmp").arg(&source).arg(home.join("one")),
    )?;
    for file in ["source", "one", "two"] {
        fs::remove_file(home.join(file))?;
    }
    wait::until("all to be free again", Duration::from_secs(10), || {
        (used(&instance, &name).ok()?.0 == before).then_some(())
    })?;
    instance.fsck_is_clean()
}

fn mapping(store: StoreKind) -> Result<()> {
    const PAGE: usize = 4096;
    let (instance, home, name) = limited(store, 10 * PAGE as u64, 100)?;
    let before = used(&instance, &name)?.0;
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).open(home.join("mapped"))?;
    file.set_len(100 * PAGE as u64)?;
    let store_pages = |pages: usize| -> std::io::Result<()> {
        use std::os::fd::AsRawFd;
        let (length, access) = (100 * PAGE, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a fresh mapping as long as the file, which nobody shortens, used within its
        // bounds and unmapped here.
        unsafe {
            let (null, fd) = (std::ptr::null_mut(), file.as_raw_fd());
            let map = libc::mmap(null, length, access, libc::MAP_SHARED, fd, 0);
            if map == libc::MAP_FAILED {
                return Err(std::io::Error::last_os_error());
            }
            std::ptr::write_bytes(map.cast::<u8>(), 5, pages * PAGE);
            let synced = match libc::msync(map, length, libc::MS_SYNC) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            };
            libc::munmap(map, length);
            synced
        }
    };
    store_pages(10)?;
    ensure!(used(&instance, &name)?.0 == before + 10 * PAGE as u64, "ten pages fit exactly");
    // The kernel knows only some errors of write-back, and passes the others on as EIO.
    let told = [store_pages(60), file.sync_all()];
    ensure!(told.iter().any(Result::is_err), "neither msync nor fsync told of the overrun");
    let (bytes, _) = used(&instance, &name)?;
    ensure!(bytes <= before + 10 * PAGE as u64, "{bytes} bytes are more than the limit");
    // The error is told once; what is there stays usable, and rm makes room.
    drop(file);
    fs::remove_file(home.join("mapped"))?;
    wait::until("all to be free again", Duration::from_secs(10), || {
        (used(&instance, &name).ok()?.0 == before).then_some(())
    })?;
    fs::write(home.join("new"), vec![1; 10 * PAGE])?;
    File::open(home.join("new"))?.sync_all()?;
    instance.fsck_is_clean()
}

fn shown_by_statvfs(store: StoreKind) -> Result<()> {
    let (instance, home, name) = limited(store, 40 * MIB, 200)?;
    fs::create_dir(home.join("dir"))?;
    fs::write(home.join("dir/file"), vec![1; 5 << 20])?;
    for number in 0..20 {
        File::create(home.join(format!("f{number}")))?;
    }
    let facts = instance.json(&["quota", &name])?;
    let number = |field: &str| facts[field].as_u64().with_context(|| field.to_owned());
    for path in [home.clone(), home.join("dir"), home.join("dir/file")] {
        let shown = rustix::fs::statvfs(&path)?;
        let off = |blocks: u64, bytes: u64| (blocks * shown.f_frsize).abs_diff(bytes);
        let free = number("bytes_limit")? - number("bytes")?;
        ensure!(
            off(shown.f_blocks, number("bytes_limit")?) < shown.f_frsize,
            "{facts} at {}",
            path.display()
        );
        ensure!(off(shown.f_bavail, free) < 2 * shown.f_frsize, "{facts} at {}", path.display());
        ensure!(
            shown.f_bavail * shown.f_frsize <= free,
            "df promises too much: {facts} at {}",
            path.display()
        );
        ensure!(shown.f_files == number("inodes_limit")?, "{facts} at {}", path.display());
        ensure!(
            shown.f_ffree == number("inodes_limit")? - number("inodes")?,
            "{facts} at {}",
            path.display()
        );
    }
    Ok(())
}

/// Everything that changes what is charged, several times over; then each byte is counted again.
fn recount(store: StoreKind) -> Result<()> {
    use rustix::fs::{RenameFlags, XattrFlags};
    let (mut instance, home, name) = limited(store, 64 * MIB, 1000)?;
    let made = |n: usize| home.join(format!("f{n}"));
    for n in 0..60_usize {
        fs::write(made(n), vec![b'a'; n * 997])?;
        let file = OpenOptions::new().write(true).open(made(n))?;
        file.write_all_at(&vec![b'b'; 3000], (n * 501) as u64)?; // overwrites, and appends
        if n % 3 == 0 {
            file.set_len((n * 700) as u64)?;
        }
        if n % 4 == 0 {
            file.write_all_at(b"far", (n as u64 + 1) << 24)?;
        }
        if n % 5 == 0 {
            fs::copy(made(n), home.join(format!("clone{n}")))?;
        }
        if n % 6 == 0 {
            rustix::fs::setxattr(made(n), "user.x", &vec![7; n * 11], XattrFlags::empty())?;
        }
        if n % 7 == 0 {
            fs::hard_link(made(n), home.join(format!("link{n}")))?;
        }
        if n % 8 == 0 {
            fs::create_dir(home.join(format!("d{n}")))?;
            fs::rename(made(n), home.join(format!("d{n}/moved")))?;
        }
        if n % 9 == 1 {
            fs::rename(made(n), made(n - 1)).or_else(|_| fs::remove_file(made(n)))?;
        }
    }
    let cwd = rustix::fs::CWD;
    rustix::fs::renameat_with(cwd, made(20), cwd, made(23), RenameFlags::EXCHANGE)?;
    std::os::unix::fs::symlink("target", home.join("symlink"))?;
    for restarted in [false, true] {
        if restarted {
            instance.stop()?;
            instance.restart()?;
        }
        let counted = count(&home)?;
        // Inodes that were replaced go once the kernel has forgotten them, soon after.
        let said = wait::until("the quota to be what was counted", Duration::from_secs(10), || {
            used(&instance, &name).ok().filter(|used| *used == counted)
        });
        said.with_context(|| format!("counted {counted:?}, quota {:?}", used(&instance, &name)))?;
        let shown = instance.json(&["home", "show", &name])?;
        ensure!(shown == instance.json(&["quota", &name])?, "home show and quota differ: {shown}");
    }
    instance.fsck_is_clean()
}

/// Bytes of data, not of holes, and of attributes' values; and inodes. Each inode once.
fn count(root: &Path) -> Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let mut seen = std::collections::BTreeSet::new();
    let (mut bytes, mut todo) = (0, vec![root.to_owned()]);
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata()?;
        if !seen.insert(meta.ino()) {
            continue;
        }
        for value in yadokari_tests::tree::xattrs(&path)?.values() {
            bytes += value.len() as u64;
        }
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        } else if meta.is_file() {
            bytes += data_bytes(&File::open(&path)?)?;
        }
    }
    Ok((bytes, seen.len() as u64))
}

/// The bytes of a file that are no holes.
fn data_bytes(file: &File) -> Result<u64> {
    use rustix::fs::{SeekFrom, seek};
    let (mut bytes, mut at) = (0, 0);
    loop {
        match seek(file, SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => return Ok(bytes),
            Err(error) => return Err(error.into()),
            Ok(start) => {
                at = seek(file, SeekFrom::Hole(start))?;
                bytes += at - start;
            }
        }
    }
}
