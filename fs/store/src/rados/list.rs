//! Listings from the index; entries that are not confirmed are asked for at their object.

use super::confirm::{Job, To};
use super::core::Core;
use super::format::{self, State};
use super::index::Found;
use super::object;
use super::op::Errno;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ListResult, ObjectMeta, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

/// Shards that one listing reads at once.
const SHARDS_MAX: usize = 32;
/// Objects that one shard of a listing asks at once.
const ASKS_MAX: usize = 32;
/// Above every character that follows a slash in a path, so that a listing can jump behind all
/// that lies below a prefix.
const BEHIND_ALL: char = char::MAX;

/// Everything below a prefix and behind an offset, in no order.
pub(super) fn list(
    core: &Arc<Core>,
    prefix: &Path,
    after: &Path,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let (core, below, after) = (Arc::clone(core), below(prefix), after.to_string());
    let shards = stream::iter(format::shards_below(prefix.as_ref()));
    shards
        .map(move |shard| list_shard(&core, shard, below.clone(), after.clone()))
        .flatten_unordered(SHARDS_MAX)
        .boxed()
}

/// The text that every path below a prefix begins with.
fn below(prefix: &Path) -> String {
    if prefix.is_root() { String::new() } else { format!("{prefix}/") }
}

fn list_shard(
    core: &Arc<Core>,
    shard: u8,
    below: String,
    after: String,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let begin = (Arc::clone(core), Some(after));
    stream::try_unfold(begin, move |(core, after)| {
        let below = below.clone();
        async move {
            let Some(after) = after else { return Ok(None) };
            let (found, more) = page(&core, shard, &below, &after).await?;
            let last = found.last().map(|found| found.path.to_string());
            let metas = resolve_all(&core, found).await?;
            Ok::<_, object_store::Error>(Some((metas, (core, last.filter(|_| more)))))
        }
    })
    .map_ok(|metas| stream::iter(metas.into_iter().map(Ok)))
    .try_flatten()
    .boxed()
}

async fn page(core: &Core, shard: u8, below: &str, after: &str) -> Result<(Vec<Found>, bool)> {
    let page = core.index.page(shard, below, after).await;
    page.map_err(|errno: Errno| {
        object::error(&core.pool, "list", &Path::parse(below).unwrap_or_default(), errno)
    })
}

async fn resolve_all(core: &Arc<Core>, found: Vec<Found>) -> Result<Vec<ObjectMeta>> {
    let resolved = stream::iter(found).map(|found| resolve(core, found)).buffered(ASKS_MAX);
    resolved.try_filter_map(|meta| async move { Ok(meta) }).try_collect().await
}

/// The object of an entry, if it is there. Old entries are put right on the way.
async fn resolve(core: &Arc<Core>, found: Found) -> Result<Option<ObjectMeta>> {
    if let Some(entry) = found.entry
        && let State::Confirmed { version, size, modified, in_parts } = entry.state
    {
        return Ok(Some(ObjectMeta {
            location: found.path,
            last_modified: modified.into(),
            size,
            e_tag: Some(format::e_tag(version, in_parts)),
            version: None,
        }));
    }
    let there = object::describe(&core.pool, &found.path).await?;
    let meta = there.map(|there| there.description.meta(&found.path, there.version));
    if found.is_old(SystemTime::now()) {
        let Found { path, value, .. } = found;
        core.confirmer.send(Job { path, old: value, to: To::Settled });
    }
    Ok(meta)
}

/// One level below a prefix.
pub(super) async fn list_with_delimiter(core: &Arc<Core>, prefix: &Path) -> Result<ListResult> {
    let below = below(prefix);
    let levels = stream::iter(format::shards_below(prefix.as_ref()))
        .map(|shard| one_level(core, shard, &below))
        .buffer_unordered(SHARDS_MAX);
    let mut levels = std::pin::pin!(levels);
    let (mut objects, mut prefixes) = (BTreeMap::new(), BTreeSet::new());
    while let Some((found, below)) = levels.try_next().await? {
        objects.extend(found.into_iter().map(|meta| (meta.location.clone(), meta)));
        prefixes.extend(below);
    }
    Ok(ListResult {
        common_prefixes: prefixes.into_iter().collect(),
        objects: objects.into_values().collect(),
        extensions: Default::default(),
    })
}

/// One shard's part of a level. Jumps over what lies below a prefix once that is known to hold
/// an object, so that listing the homes does not read the names of all their files.
async fn one_level(
    core: &Arc<Core>,
    shard: u8,
    below: &str,
) -> Result<(Vec<ObjectMeta>, BTreeSet<Path>)> {
    let (mut objects, mut prefixes) = (Vec::new(), BTreeSet::new());
    let mut after = String::new();
    loop {
        let (found, more) = page(core, shard, below, &after).await?;
        let Some(last) = found.last().map(|found| found.path.to_string()) else {
            break;
        };
        let mut direct = Vec::new();
        for found in found {
            let rest = &found.path.as_ref()[below.len()..];
            let Some((segment, _)) = rest.split_once('/') else {
                direct.push(found);
                continue;
            };
            let Ok(level) = Path::parse(format!("{below}{segment}")) else {
                continue;
            };
            if !prefixes.contains(&level) && resolve(core, found).await?.is_some() {
                prefixes.insert(level);
            }
        }
        objects.extend(resolve_all(core, direct).await?);
        if !more {
            break;
        }
        let level = last[below.len()..].split_once('/').map(|(level, _)| format!("{below}{level}"));
        after = match level.filter(|l| Path::parse(l).is_ok_and(|l| prefixes.contains(&l))) {
            Some(level) => format!("{level}/{BEHIND_ALL}"),
            None => last,
        };
    }
    Ok((objects, prefixes))
}
