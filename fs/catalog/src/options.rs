//! What a caller may choose about a catalogue. The default suits a department.

use std::time::Duration;

use crate::seam::Seams;

/// Largest manifest, by the specification.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// What lies in its record instead of in a part: one object less to write and to read, for
/// configurations, manifests and other small blobs.
pub const INLINE_BYTES_MAX: usize = 64 << 10;

/// Limits, times and seams of a catalogue.
#[derive(Clone, Debug)]
pub struct Options {
    /// Quota of owners that have none of their own, in bytes; None is no limit.
    pub default_quota: Option<u64>,
    /// How old the knowledge of a head may be. Zero asks the store every time.
    pub head_age_max: Duration,
    /// Memory for heads (tags, links, ledgers), in bytes.
    pub head_cache_bytes: u64,
    /// Memory for the bytes of manifests.
    pub manifest_cache_bytes: u64,
    /// An upload session that nobody writes to ends after this.
    pub upload_expiry: Duration,
    /// Sessions one owner may have open.
    pub uploads_max: usize,
    /// From condemning to removing. Longer than any session, request or clock error.
    pub grace: Duration,
    /// Manifests that no tag, index or subject keeps go after this.
    pub untagged_expiry: Duration,
    /// What an upload of unknown length reserves at a time.
    pub reserve_step_bytes: u64,
    /// For how long an operation is tried again when the store fails or others are quicker.
    pub retry_time: Duration,
    /// Clocks and randomness.
    pub seams: Seams,
}

impl Default for Options {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Options {
            default_quota: None,
            head_age_max: Duration::from_millis(900),
            head_cache_bytes: 24 << 20,
            manifest_cache_bytes: 16 << 20,
            upload_expiry: DAY,
            uploads_max: 1000,
            grace: 2 * DAY,
            untagged_expiry: 14 * DAY,
            reserve_step_bytes: 64 << 20,
            retry_time: Duration::from_secs(20),
            seams: Seams::default(),
        }
    }
}
