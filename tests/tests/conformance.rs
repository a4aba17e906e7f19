//! Other people's test suites on the mount: pjdfstest and fsx.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use yadokari_tests::instance::Instance;
use yadokari_tests::stores::StoreKind;
use yadokari_tests::user::User;
use yadokari_tests::{is_long, on_every_store, process};

/// Cases of pjdfstest 0.2.2 that may fail, each with its cause in the kernel or in FUSE itself.
/// There are none.
const EXPECTED_FAILURES: [&str; 0] = [];
/// Cases that pjdfstest skips: `erofs_` wants to remount the file system read-only, where the
/// answer is the kernel's and never reaches a file system; `link_count_max` wants pathconf to know
/// the limit, which the C library knows for a list of file systems only.
const EXPECTED_SKIPS: [&str; 2] = ["::erofs_", "link::link_count_max"];
/// Cases in all: fewer means that the suite did not run as a whole.
const CASES: usize = 398;

/// fsx runs this many operations in all, over all seeds.
const FSX_OPERATIONS: u64 = 40_000;
const FSX_OPERATIONS_LONG: u64 = 1_000_000;
const FSX_SEEDS: [u64; 4] = [1, 7, 4711, 20_260_101];
const FSX_TIME_MAX: Duration = Duration::from_secs(3600);

on_every_store! {
    pjdfstest_passes_as_a_whole => pjdfstest;
    fsx_finds_nothing_with_holes_copies_mappings_and_truncation => fsx;
}

fn pjdfstest(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    // The suite runs as root and switches to two users; the home must let them through.
    let dir = workplace(&user)?;
    let configuration = instance.beside().join("pjdfstest.toml");
    std::fs::write(
        &configuration,
        format!(
            "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nutime_now = {{}}\n\
             utimensat = {{}}\n[settings]\nnaptime = 0.01\nallow_remount = false\n\
             expected_failures = {EXPECTED_FAILURES:?}\n[dummy_auth]\n\
             entries = [[\"nobody\", \"nogroup\"], [\"{0}\", \"{0}\"]]\n",
            user.name
        ),
    )?;
    let mut command = Command::new("pjdfstest");
    command.arg("-c").arg(&configuration).arg("-p").arg(&dir);
    // A second file system, for renames and links that cross over.
    command.args(["-s", "/dev/shm"]).current_dir(&dir);
    let said = process::run(&mut command)?;
    let cases = parse(&said.out);
    let of = |result: &str| -> Vec<&str> {
        cases.iter().filter(|case| case.1 == result).map(|case| case.0).collect()
    };
    let failed = of("FAILED");
    if said.code != 0 || !failed.is_empty() {
        bail!("ended with {}, failed: {failed:#?}\n{}", said.code, process::tail(&said.out));
    }
    let skipped = of("skipped");
    ensure!(
        skipped.iter().all(|name| EXPECTED_SKIPS.iter().any(|skip| name.contains(skip))),
        "skipped: {skipped:#?}"
    );
    ensure!(cases.len() == CASES, "{} cases ran instead of {CASES}", cases.len());
    eprintln!("pjdfstest: {} passed, {} skipped", of("ok").len(), skipped.len());
    Ok(())
}

/// Lines of `name::of::case      result`.
fn parse(out: &str) -> Vec<(&str, &str)> {
    let words = |line| {
        let mut words = str::split_whitespace(line);
        let case = (words.next()?, words.next()?);
        (words.next().is_none() && case.0.contains("::")).then_some(case)
    };
    out.lines().filter_map(words).collect()
}

fn fsx(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    let dir = workplace(&user)?;
    let configuration = instance.beside().join("fsx.toml");
    std::fs::write(
        &configuration,
        "flen = 2097152\n[opsize]\nmax = 131072\nmin = 0\nalign = 1\n[weights]\nclose_open = 1\n\
         read = 10\nwrite = 10\nmapread = 10\nmapwrite = 10\ninvalidate = 1\ntruncate = 5\n\
         fsync = 0.2\nfdatasync = 0.2\nposix_fallocate = 2\npunch_hole = 5\nsendfile = 1\n\
         posix_fadvise = 1\ncopy_file_range = 5\n",
    )?;
    let all = if is_long() { FSX_OPERATIONS_LONG } else { FSX_OPERATIONS };
    let operations = (all / FSX_SEEDS.len() as u64).to_string();
    for seed in FSX_SEEDS {
        let file = dir.join(format!("seed-{seed}"));
        let mut command = Command::new("fsx");
        command.arg("-f").arg(&configuration).args(["-N", &operations, "-S", &seed.to_string()]);
        command.arg("-P").arg(instance.beside()).arg(&file).env("RUST_BACKTRACE", "0");
        let said = process::run_within(&mut command, FSX_TIME_MAX)?;
        let shown = format!("{}{}", process::tail(&said.out), process::tail(&said.err));
        ensure!(said.code == 0, "fsx -N {operations} -S {seed} ended with {}:\n{shown}", said.code);
    }
    instance.fsck_is_clean()
}

/// A directory in the home of `user` that everybody may enter.
fn workplace(user: &User) -> Result<std::path::PathBuf> {
    let open = |dir: &Path, mode| {
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(mode))
    };
    open(&user.home, 0o755)?;
    let dir = user.home.join("work");
    std::fs::create_dir(&dir)?;
    open(&dir, 0o755)?;
    Ok(dir)
}
