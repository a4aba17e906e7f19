//! The known keys: names, parsers, and the nearest one to a name that is not known.

use std::path::PathBuf;
use std::str::FromStr;

use super::{Settings, gateway};
use crate::exit::Failure;
use crate::size::{parse_bytes, parse_count, parse_duration};

/// Names further apart than this are not meant to be the same.
const DISTANCE_MAX: usize = 3;

/// Every key, as `section.name`.
pub const KEYS: [&str; 39] = [
    "data",
    "store",
    "log",
    "home.mount",
    "home.quota",
    "home.inodes",
    "home.create",
    "home.skeleton",
    "snapshots.hourly",
    "snapshots.daily",
    "snapshots.weekly",
    "memory.data_cache",
    "memory.table_cache",
    "memory.dirty_max",
    "memory.inodes_max",
    "timing.commit",
    "timing.flush",
    "timing.store_timeout",
    "timing.idle",
    "timing.awake",
    "gateway.listen",
    "gateway.metrics_listen",
    "gateway.external_url",
    "gateway.tls_certificate",
    "gateway.tls_key",
    "gateway.trusted_proxies",
    "gateway.sparse",
    "gateway.quota",
    "gateway.transfer_memory",
    "gateway.cache_memory",
    "gateway.blob_max",
    "gateway.connections_max",
    "gateway.requests_max",
    "gateway.stall_time",
    "gateway.shutdown_time",
    "gateway.upload_expiry",
    "gateway.untagged_expiry",
    "gateway.collect_grace",
    "gateway.collect_interval",
];

/// Sets one key from its text.
///
/// # Errors
/// What is wrong with the value.
///
/// # Panics
/// When `key` is not one of [`KEYS`].
pub fn apply(settings: &mut Settings, key: &str, value: &str) -> Result<(), String> {
    let s = settings;
    match key {
        "data" => s.data = path(value)?,
        "store" => s.store = Some(value.to_owned()),
        "log" => value.clone_into(&mut s.log),
        "home.mount" => s.home_mount = Some(path(value)?),
        "home.quota" => s.home_quota = not_zero(parse_bytes(value)?)?,
        "home.inodes" => s.home_inodes = not_zero(parse_count(value)?)?,
        "home.create" => {
            s.home_create = bool::from_str(value).map_err(|_| "write true or false".to_owned())?;
        }
        "home.skeleton" => s.home_skeleton = path(value)?,
        "snapshots.hourly" => s.snapshots_keep.hourly = kept(value)?,
        "snapshots.daily" => s.snapshots_keep.daily = kept(value)?,
        "snapshots.weekly" => s.snapshots_keep.weekly = kept(value)?,
        "memory.data_cache" => s.memory_data_cache = not_zero(parse_bytes(value)?)?,
        "memory.table_cache" => s.memory_table_cache = not_zero(parse_bytes(value)?)?,
        "memory.dirty_max" => s.memory_dirty_max = not_zero(parse_bytes(value)?)?,
        "memory.inodes_max" => s.memory_inodes_max = not_zero(parse_count(value)?)?,
        "timing.commit" => s.timing_commit = parse_duration(value)?,
        "timing.flush" => s.timing_flush = parse_duration(value)?,
        "timing.store_timeout" => s.timing_store_timeout = parse_duration(value)?,
        "timing.idle" => s.timing_idle = parse_duration(value)?,
        "timing.awake" => s.timing_awake = parse_duration(value)?,
        gateway if gateway.starts_with(gateway::SECTION) => {
            return s.gateway.apply(gateway, value);
        }
        unknown => unreachable!("`{unknown}` is not in KEYS"),
    }
    Ok(())
}

/// Sets one key from a variable such as `YADOKARI_HOME_QUOTA`.
///
/// # Errors
/// `Usage` for an unknown variable and for a wrong value.
pub fn apply_variable(settings: &mut Settings, name: &str, value: &str) -> Result<(), Failure> {
    let Some(key) = KEYS.iter().find(|key| variable(key) == name) else {
        let near = nearest(name, KEYS.iter().map(|key| variable(key)));
        let hint = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
        return Err(Failure::usage(format!("unknown environment variable `{name}`{hint}")));
    };
    apply(settings, key, value)
        .map_err(|why| Failure::usage(format!("environment variable {name}={value}: {why}")))
}

/// The variable of a key.
fn variable(key: &str) -> String {
    format!("YADOKARI_{}", key.replace('.', "_").to_ascii_uppercase())
}

/// The candidate that was probably meant.
pub fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, &candidate), candidate))
        .filter(|(distance, _)| *distance <= DISTANCE_MAX)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn path(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() { Err("the path is empty".to_owned()) } else { Ok(PathBuf::from(value)) }
}

/// Snapshots of one kind that are kept; 0 makes none.
fn kept(value: &str) -> Result<u32, String> {
    const KEPT_MAX: u32 = 1000;
    let number = value.parse().map_err(|_| "write a number; 0 makes none".to_owned())?;
    if number > KEPT_MAX { Err(format!("at most {KEPT_MAX}")) } else { Ok(number) }
}

pub(super) fn not_zero(value: u64) -> Result<u64, String> {
    if value == 0 { Err("must be more than 0".to_owned()) } else { Ok(value) }
}
