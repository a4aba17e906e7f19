//! Many at once, clients that hang, gateways that are killed: afterwards every tag is a whole
//! image, ledgers equal a recount, and nobody waited for anybody else's trouble.

use std::io::Write;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use yadokari_tests::gateway::{Options, Registry};
use yadokari_tests::http;
use yadokari_tests::image::{Blob, Client, with_query};
use yadokari_tests::on_every_store;
use yadokari_tests::stores::StoreKind;

const REPO: &str = "ada/app";

on_every_store! {
    two_pushes_of_one_tag_leave_one_whole_image => one_tag;
    of_two_writers_of_one_session_one_goes_on => one_session;
    many_pushes_of_one_blob_charge_it_once => one_blob;
    parallel_pushes_never_exceed_a_quota => quota_in_parallel;
    a_push_over_quota_says_used_and_limit_and_the_client_reads_it => over_quota;
    a_pull_goes_on_while_its_image_is_deleted => delete_during_pull;
    a_gateway_killed_during_a_push_is_taken_over => killed_during_push;
    clients_that_hang_hold_up_nobody => hanging_clients;
    a_caller_with_too_many_requests_is_told_to_wait => throttled;
    a_stop_lets_a_transfer_end => graceful;
}

/// Runs everything at the same time; all must end well.
fn together(works: Vec<Box<dyn FnOnce() -> Result<()> + Send>>) -> Result<()> {
    let start = Barrier::new(works.len());
    std::thread::scope(|scope| {
        let start = &start;
        let handles: Vec<_> = works
            .into_iter()
            .map(|work| {
                scope.spawn(move || {
                    start.wait();
                    work()
                })
            })
            .collect();
        for handle in handles {
            match handle.join() {
                Ok(done) => done?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    })
}

fn one_tag(kind: StoreKind) -> Result<()> {
    let registry = Registry::start(kind)?;
    let mut works: Vec<Box<dyn FnOnce() -> Result<()> + Send>> = Vec::new();
    for seed in 1..=6 {
        let at = registry.at(usize::try_from(seed % 2)?);
        works.push(Box::new(move || {
            Client::new(at, "ada").push_image(REPO, "latest", 2, seed).map(|_| ())
        }));
    }
    together(works)?;
    // What one gateway knows of the other's changes is at most a second old.
    std::thread::sleep(Duration::from_secs(1));
    let one = Client::new(registry.one(), "ada").pull_image(REPO, "latest")?;
    let two = Client::new(registry.two(), "ada").pull_image(REPO, "latest")?;
    ensure!(one == two, "the gateways disagree");
    registry.is_consistent()
}

fn one_session(kind: StoreKind) -> Result<()> {
    let registry = Registry::start(kind)?;
    let ada = Client::new(registry.one(), "ada");
    let blob = Blob::random(400_000, 1);
    for round in 0..4 {
        let location = ada.begin(REPO)?;
        let won = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let handles: Vec<_> = (0..2)
                .map(|n| {
                    let client = ada.at(registry.at(n));
                    let (location, blob, won) = (&location, &blob, &won);
                    scope.spawn(move || {
                        let request = client.request("PATCH", location);
                        let request = request.header("Content-Range", "0-399999");
                        let answer = client.send(&request.body(blob.bytes.clone()))?;
                        match answer.status {
                            202 => won.fetch_add(1, Ordering::SeqCst),
                            416 => 0,
                            other => bail!("{other}: {}", answer.text()),
                        };
                        Ok(())
                    })
                })
                .collect();
            handles.into_iter().try_for_each(|handle| handle.join().expect("no panic"))
        })?;
        ensure!(won.load(Ordering::SeqCst) == 1, "round {round}: {won:?} writers won");
        let target = with_query(&location, &format!("digest={}", blob.digest));
        ada.send(&ada.request("PUT", &target))?.is(201)?;
        ensure!(ada.get(&format!("{REPO}/blobs/{}", blob.digest))?.is(200)?.body == blob.bytes);
    }
    registry.is_consistent()
}

fn one_blob(kind: StoreKind) -> Result<()> {
    let quota = Some(3_500_000);
    let registry = Registry::start_with(kind, Options { quota, ..Options::default() })?;
    let blob = Blob::random(1_000_000, 1);
    // One stored and two reserved fit; six only if the blob is charged once.
    for pair in 0..3 {
        let mut works: Vec<Box<dyn FnOnce() -> Result<()> + Send>> = Vec::new();
        for n in 0..2 {
            let (client, blob) = (Client::new(registry.at(n), "ada"), blob.clone());
            let repo = format!("ada/app{}", pair * 2 + n);
            works.push(Box::new(move || client.push_blob(&repo, &blob)));
        }
        together(works)?;
    }
    registry.is_consistent()
}

fn quota_in_parallel(kind: StoreKind) -> Result<()> {
    const QUOTA: u64 = 3_000_000;
    const BLOB: usize = 500_000;
    let options = Options { quota: Some(QUOTA), ..Options::default() };
    let registry = Registry::start_with(kind, options)?;
    let stored = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..12u64)
            .map(|n| {
                let client = Client::new(registry.at(usize::from(n % 2 == 0)), "ada");
                let stored = &stored;
                scope.spawn(move || {
                    let answer = client.try_push_blob(REPO, &Blob::random(BLOB, n))?;
                    match answer.status {
                        201 => stored.fetch_add(BLOB as u64, Ordering::SeqCst),
                        403 => 0,
                        other => bail!("{other}: {}", answer.text()),
                    };
                    Ok(())
                })
            })
            .collect();
        handles.into_iter().try_for_each(|handle| handle.join().expect("no panic"))
    })?;
    let stored = stored.load(Ordering::SeqCst);
    ensure!(stored <= QUOTA && stored > 0, "{stored} bytes under a quota of {QUOTA}");
    registry.is_consistent()?;
    // What was refused holds nothing back: deleting one makes room for one.
    let client = Client::new(registry.one(), "ada");
    // What the other instance took shows here within a second.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let mut deleted = 0;
    for n in 0..12 {
        let path = format!("{REPO}/blobs/{}", Blob::random(BLOB, n).digest);
        if client.head(&path)?.status == 200 {
            client.delete(&path)?.is(202)?;
            deleted += BLOB as u64;
        }
    }
    ensure!(deleted == stored, "{deleted} bytes were found again of {stored}");
    for n in 20..25 {
        client.push_blob(REPO, &Blob::random(BLOB, n))?;
    }
    registry.is_consistent()
}

fn over_quota(kind: StoreKind) -> Result<()> {
    let options = Options { quota: Some(1_000_000), ..Options::default() };
    let registry = Registry::start_with(kind, options)?;
    let ada = Client::new(registry.one(), "ada");
    ada.push_blob(REPO, &Blob::random(600_000, 1))?;
    let large = Blob::random(30_000_000, 2);
    let refused = |answer: http::Answer| -> Result<()> {
        let answer = answer.is(403)?;
        ensure!(answer.code() == "DENIED", "{}", answer.text());
        let text = answer.text();
        ensure!(text.contains("600000 bytes") && text.contains("1000000 bytes"), "{text}");
        Ok(())
    };
    // The size is known: refused before anything is stored.
    let location = ada.begin(REPO)?;
    refused(ada.send(&ada.request("PATCH", &location).body(large.bytes.clone()))?)?;
    let target = format!("{REPO}/blobs/uploads/?digest={}", large.digest);
    refused(ada.send(&ada.request("POST", &target).body(large.bytes.clone()))?)?;
    // It is not: refused when it gets too much, and the rest of the body is read.
    let location = ada.begin(REPO)?;
    let request = ada.request("PATCH", &location).body(large.bytes).chunked();
    refused(ada.send(&request)?)?;
    ada.push_blob(REPO, &Blob::random(100_000, 3))?;
    registry.is_consistent()
}

fn delete_during_pull(kind: StoreKind) -> Result<()> {
    let registry = Registry::start(kind)?;
    let (one, two) = (Client::new(registry.one(), "ada"), Client::new(registry.two(), "ada"));
    let blob = Blob::random(20_000_000, 1);
    one.push_blob(REPO, &blob)?;
    let path = format!("{REPO}/blobs/{}", blob.digest);
    let mut stream = http::connect(registry.one())?;
    stream.write_all(one.request("GET", &path).head(registry.one()).as_bytes())?;
    std::thread::sleep(Duration::from_millis(200));
    two.delete(&path)?.is(202)?;
    let got = http::read_answer(&mut std::io::BufReader::new(stream), false)?.is(200)?;
    ensure!(got.body == blob.bytes, "the pull did not end as it began");
    two.head(&path)?.is(404)?;
    registry.is_consistent()
}

fn killed_during_push(kind: StoreKind) -> Result<()> {
    let mut registry = Registry::process(kind, Options::default())?;
    let ada = Client::new(registry.one(), "ada");
    let first = ada.push_image(REPO, "stays", 2, 1)?;
    for round in 0..3u64 {
        let killed = AtomicBool::new(false);
        let pid = registry.pid(0).context("a process")?;
        std::thread::scope(|scope| {
            let pushing = scope.spawn(|| {
                let client = Client::new(registry.one(), "ada");
                for seed in 0.. {
                    let tag = format!("t{round}-{seed}");
                    let pushed = client.push_image(REPO, &tag, 3, 100 * (round + 1) + seed);
                    if pushed.is_err() && killed.load(Ordering::SeqCst) {
                        return;
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(150 + 170 * round));
            killed.store(true, Ordering::SeqCst);
            let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            pushing.join().expect("no panic");
        });
        registry.kill(0);
        registry.restart(0)?;
        let client = Client::new(registry.one(), "ada");
        for tag in client.tags(REPO)? {
            client.pull_image(REPO, &tag).with_context(|| format!("{tag} is not whole"))?;
        }
        client.push_image(REPO, "again", 2, 9 + round)?;
        client.pull_image(REPO, "again")?;
    }
    let client = Client::new(registry.one(), "ada");
    ensure!(client.pull_image(REPO, "stays")? == first);
    // An upload that the dead gateway had begun goes on with the next one.
    let blob = Blob::random(300_000, 77);
    let location = client.begin(REPO)?;
    let request = client.request("PATCH", &location).header("Content-Range", "0-99999");
    client.send(&request.body(blob.bytes[..100_000].to_vec()))?.is(202)?;
    registry.kill(0);
    registry.restart(0)?;
    let client = client.at(registry.one());
    ensure!(client.get(&location)?.is(204)?.needs("Range")? == "0-99999");
    let target = with_query(&location, &format!("digest={}", blob.digest));
    client.send(&client.request("PUT", &target).body(blob.bytes[100_000..].to_vec()))?.is(201)?;
    registry.stop(0)?;
    registry.is_consistent()
}

fn hanging_clients(kind: StoreKind) -> Result<()> {
    let options = Options { stall_seconds: Some(3), ..Options::default() };
    let registry = Registry::start_with(kind, options)?;
    let ada = Client::new(registry.one(), "ada");
    let image = ada.push_image(REPO, "v1", 1, 1)?;
    let large = Blob::random(8_000_000, 2);
    ada.push_blob(REPO, &large)?;
    let mut held = Vec::new();
    for n in 0..60 {
        let mut stream = http::connect(registry.one())?;
        match n % 4 {
            0 => stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ")?,
            1 => {
                let location = ada.begin(REPO)?;
                let body = vec![0; 1_000_000];
                let request = ada.request("PATCH", &location).body(body);
                stream.write_all(request.head(registry.one()).as_bytes())?;
                stream.write_all(&[0; 300_000])?;
            }
            2 => {
                // Asks for much and reads nothing.
                let path = format!("{REPO}/blobs/{}", large.digest);
                let request = ada.request("GET", &path);
                stream.write_all(request.head(registry.one()).as_bytes())?;
            }
            _ => {}
        }
        held.push(stream);
    }
    let began = Instant::now();
    for seed in 10..13 {
        ada.push_image(REPO, "v2", 2, seed)?;
        ada.pull_image(REPO, "v2")?;
    }
    ensure!(ada.pull_image(REPO, "v1")? == image);
    // Generous: the machine is busy, but a minute's limit of a hanging client is not in it.
    ensure!(began.elapsed() < Duration::from_secs(45), "took {:?}", began.elapsed());
    // Who began an upload and went silent is cut off, and what arrived was kept.
    drop(held);
    registry.is_consistent()
}

fn throttled(kind: StoreKind) -> Result<()> {
    let options = Options { requests_max: Some(4), ..Options::default() };
    let registry = Registry::start_with(kind, options)?;
    let (ada, bob) = (Client::new(registry.one(), "ada"), Client::new(registry.one(), "bob"));
    let mut held = Vec::new();
    for _ in 0..4 {
        let location = ada.begin(REPO)?;
        let mut stream = http::connect(registry.one())?;
        let request = ada.request("PATCH", &location).body(vec![0; 1000]);
        stream.write_all(request.head(registry.one()).as_bytes())?;
        held.push(stream);
        std::thread::sleep(Duration::from_millis(100));
    }
    let limit = Duration::from_secs(20);
    let refused = yadokari_tests::wait::until("a refusal", limit, || {
        ada.get("ada/app/tags/list").ok().filter(|answer| answer.status == 429)
    })?;
    ensure!(refused.code() == "TOOMANYREQUESTS" && refused.header("Retry-After").is_some());
    bob.push_image("bob/app", "v1", 1, 1)?;
    drop(held);
    yadokari_tests::wait::until("room again", limit, || ada.begin(REPO).ok())?;
    Ok(())
}

fn graceful(kind: StoreKind) -> Result<()> {
    let mut registry = Registry::process(kind, Options::default())?;
    let address = registry.one();
    let ada = Client::new(address, "ada");
    let blob = Blob::random(4_000_000, 1);
    ada.push_image(REPO, "v1", 1, 1)?;
    let location = ada.begin(REPO)?;
    let target = with_query(&location, &format!("digest={}", blob.digest));
    let request = ada.request("PUT", &target).body(blob.bytes.clone());
    let mut stream = http::connect(address)?;
    stream.write_all(request.head(address).as_bytes())?;
    stream.write_all(&blob.bytes[..1_000_000])?;
    std::thread::sleep(Duration::from_millis(300));
    let answer = std::thread::scope(|scope| -> Result<Value> {
        let stopping = scope.spawn(|| registry.stop(0));
        std::thread::sleep(Duration::from_millis(700));
        stream.write_all(&blob.bytes[1_000_000..])?;
        let answer = http::read_answer(&mut std::io::BufReader::new(&stream), false)?.is(201)?;
        stopping.join().expect("no panic")?;
        Ok(answer.status.into())
    })?;
    ensure!(answer == 201);
    registry.restart(0)?;
    let client = ada.at(registry.one());
    ensure!(client.get(&format!("{REPO}/blobs/{}", blob.digest))?.is(200)?.body == blob.bytes);
    registry.stop(0)?;
    registry.is_consistent()
}
