//! Homes that are whole are found whole, whatever they went through.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_of_all_shapes_is_clean_closed_and_open() {
    let bed = Bed::build().await;
    let report = bed.check(true).await;
    assert!(report.clean, "{report}");
    assert_eq!(report.totals.inodes, 10);
    assert_eq!(report.totals.entries, 10);
    assert!(report.totals.verified_bytes > 700_000);
    let home = bed.open().await;
    let mut stages = 0;
    let options = Options { verify_data: true, in_use: true };
    let report = home.check(options, &mut |_| stages += 1).await.expect("checks");
    assert!(report.clean, "{report}");
    assert!(stages >= 6);
    let usage = home.usage();
    assert_eq!((report.totals.charged_bytes, report.totals.inodes), (usage.bytes, usage.inodes));
    home.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_in_use_elsewhere_is_clean_from_outside_while_it_is_written() {
    let bed = Bed::build().await;
    let home = bed.open().await;
    let me = Caller { uid: 1, gid: 1, client: home.attach() };
    for n in 0..20_u64 {
        let made = home.make(me.clone(), Ino::ROOT, name(&format!("n{n}")), node(Kind::File));
        let ino = made.await.expect("makes").ino;
        let data = noise(n, 100_000);
        home.write(me.clone(), ino, 0, data, WriteMode::default()).await.expect("writes");
        if n % 5 == 0 {
            home.sync().await.expect("syncs");
            let options = Options { verify_data: true, in_use: true };
            let prefix = Bed::prefix();
            let report = check_closed(&bed.meta, &bed.data, &prefix, options, &mut |_| {}).await;
            let report = report.expect("checks");
            assert!(report.clean, "{report}");
        }
    }
    home.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_over_when_everything_was_removed() {
    let bed = Bed::build().await;
    let home = bed.open().await;
    let me = Caller { uid: 1, gid: 1, client: home.attach() };
    for (dir, file) in [
        ("docs", "a.txt"),
        ("docs", "hard"),
        ("docs", "big.bin"),
        ("docs", "many"),
        ("docs", "clone"),
        ("deep", "x"),
    ] {
        home.unlink(me.clone(), bed.ino(dir), name(file)).await.expect("removes");
    }
    home.unlink(me.clone(), Ino::ROOT, name("log")).await.expect("removes");
    home.rmdir(me.clone(), bed.ino("sub"), name("deep")).await.expect("removes");
    home.rmdir(me.clone(), Ino::ROOT, name("sub")).await.expect("removes");
    home.detach(me.client);
    home.sync().await.expect("syncs");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let options = Options { verify_data: true, in_use: true };
    let report = home.check(options, &mut |_| {}).await.expect("checks");
    assert!(report.clean, "{report}");
    home.close().await.expect("closes");
    let report = bed.check(true).await;
    assert!(report.clean, "{report}");
    assert_eq!((report.totals.inodes, report.totals.chunks, report.totals.smalls), (2, 0, 0));
    assert_eq!((report.totals.charged_bytes, report.totals.live_bytes), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_that_are_open_are_no_findings_and_keep_their_data() {
    let bed = Bed::build().await;
    let home = bed.open().await;
    let me = Caller { uid: 1, gid: 1, client: home.attach() };
    let docs = bed.ino("docs");
    for file in ["many", "big.bin"] {
        home.lookup(me.client, docs, name(file)).await.expect("there");
        home.unlink(me.clone(), docs, name(file)).await.expect("removes");
    }
    let options = Options { verify_data: true, in_use: true };
    let report = home.check(options, &mut |_| {}).await.expect("checks");
    assert!(report.clean, "{report}");
    assert_eq!(report.totals.orphans, 2);
    home.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_is_clean_after_many_changes_of_every_sort() {
    use rand::{RngExt, SeedableRng};
    for seed in 0..6_u64 {
        println!("seed {seed}");
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let bed = Bed::build().await;
        let home = bed.open().await;
        let me = Caller { uid: 1, gid: 1, client: home.attach() };
        let dirs = [Ino::ROOT, bed.ino("docs"), bed.ino("deep")];
        let mut files: Vec<(Ino, Ino, Name)> = Vec::new();
        for n in 0..300_u64 {
            let dir = dirs[random.random_range(0..3)];
            let at = random.random_range(0..files.len().max(1));
            let offset = random.random_range(0..1_500_000_u64);
            let len = random.random_range(1..90_000_usize);
            let Some((ino, above, old)) = files.get(at).cloned() else {
                let new = name(&format!("f{n}"));
                let attr = home.make(me.clone(), dir, new.clone(), node(Kind::File)).await;
                files.push((attr.expect("makes").ino, dir, new));
                continue;
            };
            match random.random_range(0..12) {
                0..=1 => {
                    let new = name(&format!("f{n}"));
                    let attr = home.make(me.clone(), dir, new.clone(), node(Kind::File)).await;
                    files.push((attr.expect("makes").ino, dir, new));
                }
                2..=4 => {
                    let data = noise(random.random_range(0..4), len);
                    let mode = WriteMode { append: n % 2 == 0, ..WriteMode::default() };
                    home.write(me.clone(), ino, offset, data, mode).await.expect("writes");
                }
                5 => home.fsync(ino).await.expect("syncs"),
                6 => {
                    let set = SetAttr { size: Some(offset), ..SetAttr::default() };
                    home.setattr(me.clone(), ino, set).await.expect("truncates");
                }
                7 => {
                    let what = [
                        Falloc::PunchHole,
                        Falloc::Allocate { keep_size: true },
                        Falloc::ZeroRange { keep_size: false },
                    ][random.random_range(0..3)];
                    home.fallocate(me.clone(), ino, what, offset, len as u64).await.expect("does");
                }
                8 => {
                    let to = files[random.random_range(0..files.len())].0;
                    if to != ino {
                        let copied = home.copy_range(me.clone(), (ino, 0), (to, offset), 500_000);
                        copied.await.expect("clones");
                    }
                }
                9 => {
                    let new = name(&format!("r{n}"));
                    let (from, to) = ((above, old), (dir, new.clone()));
                    let mode = RenameMode::default();
                    home.rename(me.clone(), from, to, mode).await.expect("renames");
                    files[at] = (ino, dir, new);
                }
                10 => {
                    home.unlink(me.clone(), above, old).await.expect("removes");
                    home.forget(me.client, ino, 1);
                    files.swap_remove(at);
                }
                _ => {
                    let new = name(&format!("l{n}"));
                    home.link(me.clone(), ino, dir, new).await.expect("links");
                    let value = noise(n, len.min(1000));
                    let key = Bytes::from_static(b"user.a");
                    home.setxattr(me.clone(), ino, key, value, XattrMode::default())
                        .await
                        .expect("sets");
                }
            }
            if n % 60 == 59 {
                let options = Options { verify_data: true, in_use: true };
                let report = home.check(options, &mut |_| {}).await.expect("checks");
                assert!(report.clean, "seed {seed}, step {n}: {report}");
            }
        }
        let usage = home.usage();
        home.close().await.expect("closes");
        let report = bed.check(true).await;
        assert!(report.clean, "seed {seed}: {report}");
        assert_eq!(report.totals.charged_bytes, usage.bytes, "seed {seed}");
    }
}
