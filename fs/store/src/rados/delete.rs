//! Deletes.

use super::STORE;
use super::confirm::{Job, To};
use super::core::Core;
use super::format::{self, Entry, State};
use super::object;
use super::op::{Errno, Full, WriteOp};
use super::put::remove_parts_later;
use crate::error::Detail;
use object_store::Result;
use object_store::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How often an object or its entry may change under a delete.
const RACES_MAX: u32 = 100;
/// How often, and how long each time, a delete waits for the entry of a put that is just ending.
const ENTRY_WAITS_MAX: u32 = 10;
const ENTRY_WAIT: Duration = Duration::from_millis(20);

/// Removes an object, then its entry: see the rules in `index`.
pub(super) async fn delete(core: &Arc<Core>, path: &Path) -> Result<()> {
    let failed = |errno| object::error(&core.pool, "delete", path, errno);
    let name = format::object_name(path);
    let mut waits = 0;
    for _ in 0..RACES_MAX {
        let ask = object::describe(&core.pool, path);
        let (there, entry) = futures::future::join(ask, core.index.get(path)).await;
        let Some(there) = there? else {
            return Err(failed(Errno(libc::ENOENT)));
        };
        let found = entry.map_err(failed)?;
        let own = found.as_ref().and_then(|found| found.entry);
        let own = own.is_some_and(|entry| entry.nonce == there.description.nonce);
        if !own && waits < ENTRY_WAITS_MAX {
            waits += 1;
            tokio::time::sleep(ENTRY_WAIT).await;
            continue;
        }
        let state = if own { State::Deleting } else { State::Pending };
        let mark = Entry { state, nonce: core.next_nonce(), written: SystemTime::now() }.encode();
        let marked = match &found {
            Some(found) => core.index.swap(path, &found.value, &mark).await.map_err(failed)?,
            // Nothing to compare with: a stray, which nobody else knows of.
            None => {
                let nonce = core.next_nonce();
                let fresh = core.index.write(path, State::Pending, nonce, Full::Force).await;
                fresh.map(|_| true).map_err(failed)?
            }
        };
        if !marked {
            continue;
        }
        let op = WriteOp::new().assert_version(there.version).remove();
        match core.pool.write(&name, op, Full::Force, 0).await {
            Ok(_) => {}
            Err(Errno(libc::ERANGE | libc::EOVERFLOW)) => continue,
            Err(errno) => return Err(failed(errno)),
        }
        if own {
            core.confirmer.send(Job { path: path.clone(), old: mark, to: To::Removed });
        }
        if there.description.in_parts {
            remove_parts_later(core, there.description.nonce);
        }
        return Ok(());
    }
    let why = "others keep replacing it".to_owned();
    Err(Detail::Unavailable { operation: "delete", object: path.to_string(), why }.at(STORE))
}
