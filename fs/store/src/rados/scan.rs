//! The scan of a whole pool, for fsck: objects without entries, entries without objects, parts
//! without an object. Nothing younger than the grace of an index entry is called lost.

use super::confirm::{self, Job, To};
use super::core::Core;
use super::format::{self, Nonce, SHARDS, State};
use super::index::GRACE;
use super::names::Names;
use super::object;
use super::op::{Errno, Full, ReadOp, WriteOp};
use crate::store::ScanReport;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

const BATCH: usize = 1000;
const CONCURRENT_MAX: usize = 64;

/// What one pass over a pool's names saw.
#[derive(Default)]
struct Seen {
    report: ScanReport,
    /// Parts by nonce, with their names.
    parts: HashMap<Nonce, Vec<String>>,
    /// Nonces that objects name.
    named: HashSet<Nonce>,
}

pub(super) async fn scan(core: &Arc<Core>, repair: bool) -> Result<ScanReport> {
    let mut seen = Seen::default();
    let mut names = names(core);
    while let Some(batch) = names.recv().await {
        let batch = batch.map_err(|errno| failed(core, errno))?;
        look_at(core, repair, batch, &mut seen).await?;
    }
    let Seen { mut report, parts, named } = seen;
    for shard in 0..SHARDS {
        report.stale_entries += stale_entries(core, repair, shard).await?;
    }
    for (nonce, names) in parts {
        if !named.contains(&nonce) {
            orphans(core, repair, names, &mut report).await?;
        }
    }
    Ok(report)
}

/// Reads the pool's names on a thread of their own; librados has no other way.
fn names(core: &Arc<Core>) -> mpsc::Receiver<Result<Vec<String>, Errno>> {
    let (sender, receiver) = mpsc::channel(4);
    let pool = Arc::clone(&core.pool);
    tokio::task::spawn_blocking(move || {
        let errno = |error: std::io::Error| Errno(error.raw_os_error().unwrap_or(libc::EIO));
        let read = || -> Result<(), Errno> {
            let mut names = Names::open(&pool).map_err(errno)?;
            let mut batch = Vec::with_capacity(BATCH);
            while let Some(name) = names.next().map_err(errno)? {
                batch.push(name);
                if batch.len() == BATCH
                    && sender.blocking_send(Ok(std::mem::take(&mut batch))).is_err()
                {
                    return Ok(());
                }
            }
            // Nobody reads on when the scan was given up.
            let _unread = sender.blocking_send(Ok(batch));
            Ok(())
        };
        if let Err(errno) = read() {
            let _unread = sender.blocking_send(Err(errno));
        }
    });
    receiver
}

async fn look_at(
    core: &Arc<Core>,
    repair: bool,
    names: Vec<String>,
    seen: &mut Seen,
) -> Result<()> {
    let mut paths = Vec::new();
    for name in names {
        if let Some(nonce) = format::nonce_of_part(&name) {
            seen.parts.entry(nonce).or_default().push(name);
        } else if let Some(path) = format::path_of_object(&name) {
            paths.push(path);
        }
    }
    let looked = stream::iter(paths).map(|path| object_and_entry(core, repair, path));
    let mut looked = looked.buffer_unordered(CONCURRENT_MAX);
    while let Some((there, stray, nonce)) = looked.try_next().await? {
        seen.report.objects += u64::from(there);
        seen.report.strays += u64::from(stray);
        seen.named.extend(nonce);
    }
    Ok(())
}

/// Whether the object is there, whether no entry names it, and the nonce of its parts.
async fn object_and_entry(
    core: &Arc<Core>,
    repair: bool,
    path: Path,
) -> Result<(bool, bool, Option<Nonce>)> {
    let Some(there) = object::describe(&core.pool, &path).await? else {
        return Ok((false, false, None));
    };
    let description = there.description;
    let nonce = description.in_parts.then_some(description.nonce);
    let entry = core.index.get(&path).await.map_err(|errno| failed(core, errno))?;
    let stray = entry.is_none();
    if stray && repair {
        let entry = core.index.write(&path, State::Pending, core.next_nonce(), Full::Force).await;
        let old = entry.map_err(|errno| failed(core, errno))?;
        confirm::run(&core.pool, &core.index, Job { path, old, to: To::Verified }).await;
    }
    Ok((true, stray, nonce))
}

/// Entries of one shard whose object is gone and whose writer will not come back.
async fn stale_entries(core: &Arc<Core>, repair: bool, shard: u8) -> Result<u64> {
    let (mut stale, mut after) = (0, String::new());
    let now = SystemTime::now();
    loop {
        let page = core.index.page(shard, "", &after).await;
        let (found, more) = page.map_err(|errno| failed(core, errno))?;
        after = found.last().map(|found| found.path.to_string()).unwrap_or_default();
        let asked = stream::iter(found).map(|found| async move {
            let confirmed = |entry: format::Entry| matches!(entry.state, State::Confirmed { .. });
            let settled = found.entry.is_some_and(confirmed) || found.is_old(now);
            let gone = settled && object::describe(&core.pool, &found.path).await?.is_none();
            if gone && repair {
                let job = Job { path: found.path, old: found.value, to: To::Settled };
                confirm::run(&core.pool, &core.index, job).await;
            }
            Ok::<_, Error>(u64::from(gone))
        });
        let mut asked = asked.buffer_unordered(CONCURRENT_MAX);
        while let Some(gone) = asked.try_next().await? {
            stale += gone;
        }
        if !more {
            return Ok(stale);
        }
    }
}

/// Parts that no object names. A young one may belong to an upload that is under way.
async fn orphans(
    core: &Arc<Core>,
    repair: bool,
    names: Vec<String>,
    report: &mut ScanReport,
) -> Result<()> {
    for name in names {
        let Ok(name) = CString::new(name) else {
            continue;
        };
        let ask = ReadOp { stat: true, ..ReadOp::default() };
        let part = match core.pool.read(&name, ask).await {
            Err(Errno(libc::ENOENT)) => continue,
            part => part.map_err(|errno| failed(core, errno))?,
        };
        let written = UNIX_EPOCH + Duration::from_secs(u64::try_from(part.modified).unwrap_or(0));
        if SystemTime::now().duration_since(written).is_ok_and(|age| age > GRACE) {
            report.orphan_parts += 1;
            report.orphan_bytes += part.size;
            if repair {
                let removed = core.pool.write(&name, WriteOp::new().remove(), Full::Force, 0).await;
                removed.map_err(|errno| failed(core, errno))?;
            }
        }
    }
    Ok(())
}

fn failed(core: &Core, errno: Errno) -> Error {
    object::error(&core.pool, "scan", &Path::default(), errno)
}
