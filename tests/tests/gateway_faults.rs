//! The store fails at each operation of a push, a gateway dies there, the disk is full: what the
//! client is told is clear, another gateway goes on where the first one stopped, every tag is a
//! whole image, and ledgers equal a recount.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use yadokari_catalog::CollectOptions;
use yadokari_store::Kind;
use yadokari_store::fault::{Action, Crash, Fault, FaultControl, FaultPlan, OpKind};
use yadokari_tests::gateway::{Options, Registry};
use yadokari_tests::http::Answer;
use yadokari_tests::image::{Blob, Client, manifest, with_query};
use yadokari_tests::on_every_store;
use yadokari_tests::stores::StoreKind;

const REPO: &str = "ada/app";
/// More than lies in a record, so that parts are written.
const LAYER: usize = 150_000;
/// How many operations a push may have; reached only if something never ends.
const POINTS_MAX: u64 = 400;

on_every_store! {
    a_store_that_fails_once_during_a_push_leaves_whole_images_and_right_ledgers => fails_once;
    a_push_whose_gateway_dies_anywhere_goes_on_with_another => dies_anywhere;
}

/// An image whose bytes nobody pushed before.
struct Image {
    config: Blob,
    layers: Vec<Blob>,
    manifest: Value,
}

impl Image {
    fn new(seed: u64) -> Self {
        let config = Blob::random(700, seed * 100);
        let layers =
            vec![Blob::random(LAYER, seed * 100 + 1), Blob::random(90_000, seed * 100 + 2)];
        let manifest = manifest(&config, &layers);
        Self { config, layers, manifest }
    }

    fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().chain([&self.config])
    }
}

/// Where a client stands in the middle of a blob.
#[derive(Default)]
struct Standing {
    location: Option<String>,
}

/// What a request came to: done, or an error of the registry's own that says "not now".
fn expected(answer: Answer, good: &[u16]) -> Result<Option<Answer>> {
    if good.contains(&answer.status) {
        return Ok(Some(answer));
    }
    let code = answer.code();
    match answer.status {
        503 => ensure!(code == "UNAVAILABLE" && answer.header("Retry-After").is_some(), "{code}"),
        507 => ensure!(code == "DENIED" && answer.text().contains("full"), "{}", answer.text()),
        other => bail!("{other}: {}", answer.text()),
    }
    Ok(None)
}

/// Pushes a blob in two chunks and a closing PUT. False when the registry refused for now.
fn push_in_chunks(
    client: &Client,
    repo: &str,
    blob: &Blob,
    standing: &mut Standing,
) -> Result<bool> {
    let begin = client.request("POST", &format!("{repo}/blobs/uploads/"));
    let Some(begun) = expected(client.send(&begin)?, &[202])? else { return Ok(false) };
    let location = begun.needs("Location")?.to_owned();
    standing.location = Some(location.clone());
    let half = blob.bytes.len() / 2;
    for (from, to) in [(0, half), (half, blob.bytes.len())] {
        let range = format!("{from}-{}", to - 1);
        let request = client.request("PATCH", &location).header("Content-Range", range);
        let answer = client.send(&request.body(blob.bytes[from..to].to_vec()))?;
        if expected(answer, &[202])?.is_none() {
            return Ok(false);
        }
    }
    let target = with_query(&location, &format!("digest={}", blob.digest));
    let done = expected(client.send(&client.request("PUT", &target))?, &[201])?.is_some();
    if done {
        standing.location = None;
    }
    Ok(done)
}

/// Pushes the rest of a blob as a good client does: asks where the upload stands and goes on.
fn go_on(client: &Client, repo: &str, blob: &Blob, standing: &mut Standing) -> Result<()> {
    if client.head(&format!("{repo}/blobs/{}", blob.digest))?.status == 200 {
        standing.location = None;
        return Ok(());
    }
    let Some(location) = standing.location.take() else {
        return client.push_blob(repo, blob);
    };
    let asked = client.get(&location)?;
    if asked.status == 404 {
        return client.push_blob(repo, blob);
    }
    let range = asked.is(204)?.needs("Range")?.to_owned();
    let last: usize = range.strip_prefix("0-").context("a range")?.parse()?;
    // Nothing yet is `0-0`, as for a single byte: no chunk of ours is as short as that.
    let from = if last == 0 { 0 } else { last + 1 };
    let target = with_query(&location, &format!("digest={}", blob.digest));
    let request = client.request("PUT", &target);
    let request = match from {
        0 => request,
        from if from == blob.bytes.len() => request,
        from => request.header("Content-Range", format!("{from}-{}", blob.bytes.len() - 1)),
    };
    let answer = client.send(&request.body(blob.bytes[from..].to_vec()))?;
    if answer.status == 201 {
        return Ok(());
    }
    // The dead gateway may have been closing it: then it is the blob or nothing.
    ensure!(matches!(answer.status, 404 | 416), "{}: {}", answer.status, answer.text());
    client.push_blob(repo, blob)
}

/// A push from its begin; where it stopped, if it did.
fn push(client: &Client, repo: &str, tag: &str, image: &Image) -> Result<Result<(), Standing>> {
    let mut standing = Standing::default();
    for blob in image.blobs() {
        if !push_in_chunks(client, repo, blob, &mut standing)? {
            return Ok(Err(standing));
        }
    }
    let put = client.put_manifest(repo, tag, &image.manifest)?;
    Ok(if expected(put, &[201])?.is_some() { Ok(()) } else { Err(standing) })
}

/// The whole of it through a gateway that works, whatever was done before.
fn complete(
    client: &Client,
    repo: &str,
    tag: &str,
    image: &Image,
    mut standing: Standing,
) -> Result<()> {
    for blob in image.blobs() {
        go_on(client, repo, blob, &mut standing)?;
    }
    client.put_manifest(repo, tag, &image.manifest)?.is(201)?;
    Ok(())
}

/// Every tag can be pulled whole.
fn tags_are_whole(client: &Client, repo: &str) -> Result<()> {
    let list = client.get(&format!("{repo}/tags/list"))?;
    if list.status == 404 {
        return Ok(());
    }
    let list: Vec<String> = serde_json::from_value(list.is(200)?.json()?["tags"].clone())?;
    for tag in list {
        client.pull_image(repo, &tag).with_context(|| format!("{tag} is not whole"))?;
    }
    Ok(())
}

fn start(kind: StoreKind) -> Result<(Registry, FaultControl)> {
    let control = FaultControl::new(FaultPlan::none());
    let options = Options { faults: Some(control.clone()), ..Options::default() };
    Ok((Registry::start_with(kind, options)?, control))
}

fn fails_once(kind: StoreKind) -> Result<()> {
    let (registry, control) = start(kind)?;
    let (one, two) = (Client::new(registry.one(), "ada"), Client::new(registry.two(), "ada"));
    let actions = [
        Action::Fail(Kind::Unavailable),
        Action::LoseAnswer(Kind::Unavailable),
        Action::Fail(Kind::NoSpace),
    ];
    let mut seed = 0;
    let mut refused = 0;
    for (way, action) in actions.into_iter().enumerate() {
        let repo = format!("ada/once{way}");
        // A full medium fails writes; other failures come over anything.
        let kinds: &[OpKind] = if way == 2 { &OpKind::WRITES } else { &[] };
        let mut point = 0;
        loop {
            ensure!(point < POINTS_MAX, "a push never ended");
            seed += 1;
            let image = Image::new(seed);
            control.reset_counters();
            let fault = Fault::new(action.clone()).on(kinds.iter().copied()).after(point);
            control.arm(fault.into());
            let tag = format!("t{point}");
            let pushed = push(&one, &repo, &tag, &image);
            let pushed = pushed.with_context(|| format!("{action:?} at operation {point}"))?;
            control.disarm();
            let met = control.counters().faulted > 0;
            if let Err(standing) = pushed {
                refused += 1;
                tags_are_whole(&two, &repo)?;
                let done = complete(&one, &repo, &tag, &image, standing);
                done.with_context(|| format!("after {action:?} at operation {point}"))?;
            }
            two.pull_image(&repo, &tag)
                .with_context(|| format!("{tag} after {action:?} at operation {point}"))?;
            if !met {
                break;
            }
            point += 1;
        }
        eprintln!("{action:?}: {point} operations, {refused} refusals so far");
    }
    // What the medium has no room for cannot be tried again.
    ensure!(refused > 0, "no push was refused");
    registry.is_consistent()
}

fn dies_anywhere(kind: StoreKind) -> Result<()> {
    let (mut registry, mut control) = start(kind)?;
    let two = Client::new(registry.two(), "ada");
    let mut seed = 5000;
    let mut died = 0;
    for (way, crash) in [Crash::Before, Crash::After].into_iter().enumerate() {
        let repo = format!("ada/dies{way}");
        let mut point = 0;
        loop {
            ensure!(point < POINTS_MAX, "a push never ended");
            seed += 1;
            let image = Image::new(seed);
            let tag = format!("t{point}");
            control.arm(Fault::new(Action::Crash(crash)).after(point).into());
            let client = Client::new(registry.one(), "ada");
            let pushed = push(&client, &repo, &tag, &image);
            let pushed = pushed.with_context(|| format!("{crash:?} at operation {point}"))?;
            let met = control.crashed();
            let (tag, point_now) = (tag.as_str(), point);
            let what = || format!("{tag}: died {crash:?} operation {point_now}");
            if let Err(standing) = pushed {
                died += 1;
                tags_are_whole(&two, &repo).with_context(what)?;
                complete(&two, &repo, tag, &image, standing).with_context(what)?;
            }
            two.pull_image(&repo, tag).with_context(what)?;
            if !met {
                break;
            }
            control = registry.replace_faulty()?;
            point += 1;
        }
        eprintln!("{crash:?}: {point} operations, {died} broke a push so far");
    }
    ensure!(died > 0, "no gateway died during a push");
    tags_are_whole(&two, REPO)?;
    registry.is_consistent()
}

#[test]
fn a_full_disk_is_said_clearly_and_deleting_makes_room_again() -> Result<()> {
    const BLOB: usize = 6_000_000;
    let options = Options { disk_mib: Some(96), ..Options::default() };
    let registry = Registry::start_with(StoreKind::File, options)?;
    let ada = Client::new(registry.one(), "ada");
    let keep = ada.push_image(REPO, "keep", 2, 1)?;
    let mut full = None;
    let mut stored = Vec::new();
    for n in 0..40 {
        let blob = Blob::random(BLOB, 1000 + n);
        let answer = ada.try_push_blob(REPO, &blob)?;
        match answer.status {
            201 => stored.push(blob),
            507 => {
                full = Some(answer);
                break;
            }
            other => bail!("{other}: {}", answer.text()),
        }
    }
    let full = full.context("the disk never was full")?;
    ensure!(full.code() == "DENIED" && full.text().contains("full"), "{}", full.text());
    ensure!(stored.len() > 5, "only {} blobs fit", stored.len());
    // Reading goes on, and so do other refusals; half a push is nowhere to be seen.
    ensure!(ada.pull_image(REPO, "keep")? == keep);
    for n in 0..5 {
        let answer = ada.try_push_blob(REPO, &Blob::random(BLOB, 2000 + n))?;
        ensure!(answer.status == 507, "{}: {}", answer.status, answer.text());
    }
    tags_are_whole(&ada, REPO)?;
    for blob in &stored {
        let path = format!("{REPO}/blobs/{}", blob.digest);
        ada.delete(&path)?.is(202).context("deleting on a full disk")?;
        ada.head(&path)?.is(404)?;
    }
    let round = CollectOptions { pace: Duration::ZERO, ..CollectOptions::default() };
    let mut removed = 0;
    for _ in 0..3 {
        removed += registry.collect(&round).context("collecting on a full disk")?.removed;
    }
    ensure!(removed >= stored.len() as u64, "{removed} of {} blobs went", stored.len());
    for n in 0..5 {
        ada.push_blob(REPO, &Blob::random(BLOB, 3000 + n)).context("pushing again")?;
    }
    ada.push_image(REPO, "after", 2, 5)?;
    tags_are_whole(&ada, REPO)?;
    ensure!(ada.pull_image(REPO, "keep")? == keep);
    registry.is_consistent()
}
