//! The store: does it answer?

use std::time::{Duration, Instant};

use yadokari_store::{StoreOptions, StoreUrl};

use super::{Finding, Subject};
use crate::serve;

/// A store that takes longer than this to open is not reachable.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// Opens it and looks for one object, within a bounded time.
pub async fn reachable(subject: &Subject) -> Finding {
    let check = "store";
    let url = subject.settings.store_url();
    // The embedded store is made by the first start; the data directory has a check of its own.
    if let Ok(StoreUrl::File(path)) = url.parse::<StoreUrl>()
        && subject.settings.store.is_none()
        && !path.exists()
    {
        return Finding::ok(check, format!("{url}, made at the first start"));
    }
    let started = Instant::now();
    let options =
        StoreOptions { open_timeout: OPEN_MAX, request_timeout: OPEN_MAX, ..Default::default() };
    match serve::open_store(&subject.settings, &options).await {
        Ok(_store) => {
            let ms = started.elapsed().as_millis();
            Finding::ok(check, format!("{url} answers within {ms} ms"))
        }
        Err(error) => {
            let remedy = match url.split(':').next() {
                Some("rados") => {
                    "check the monitor addresses in ceph.conf, the keyring of this client and the \
                     pool: ceph --conf … -n client.… -s, and rados -p POOL ls"
                }
                _ => "check the URL and the rights on what it names",
            };
            Finding::fail(check, format!("{error:#}"), remedy)
        }
    }
}
