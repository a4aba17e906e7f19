//! Heads by owner name, read through a memory that knows how old it is.
//!
//! A value that is asked for with an age limit comes from memory when it is young enough; of
//! many who find it too old one reads the store and the others wait for that. What does not
//! exist is the default. When the store fails, a value that was right within the last minute
//! still counts: an outage must not log everybody out.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use serde::Serialize;
use serde::de::DeserializeOwned;
use yadokari_catalog::{Clock, OwnerName};
use yadokari_store::head::{self, HeadError};
use yadokari_store::object_store::ObjectStore;
use yadokari_store::object_store::path::Path;

/// Names kept in memory; one takes a few hundred bytes.
const KEPT_MAX: usize = 10_000;
/// Swaps of one head that are tried while others keep winning.
const TRIES_MAX: usize = 32;
/// While the store fails, what was read within this still counts.
const OUTAGE_GRACE: Duration = Duration::from_secs(60);

/// All heads of one kind.
#[derive(Debug)]
pub struct Shelf<T> {
    store: Arc<dyn ObjectStore>,
    prefix: &'static str,
    clock: Arc<dyn Clock>,
    kept: Cache<OwnerName, Arc<Slot<T>>>,
}

#[derive(Debug)]
struct Slot<T> {
    value: Mutex<Option<(Duration, Arc<T>)>>,
    reading: tokio::sync::Mutex<()>,
}

impl<T> Shelf<T>
where
    T: Debug + Default + Serialize + DeserializeOwned,
{
    /// Heads called `prefix/NAME`.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &'static str, clock: Arc<dyn Clock>) -> Self {
        Self { store, prefix, clock, kept: Cache::new(KEPT_MAX) }
    }

    /// The value, at most `age_max` old.
    pub async fn get(&self, name: &OwnerName, age_max: Duration) -> Result<Arc<T>, HeadError> {
        let slot = self.slot(name);
        if let Some(value) = self.young(&slot, age_max) {
            return Ok(value);
        }
        let _one = slot.reading.lock().await;
        if let Some(value) = self.young(&slot, age_max) {
            return Ok(value);
        }
        let asked = self.clock.monotonic();
        match self.read(name).await {
            Ok((value, _version)) => Ok(keep(&slot, asked, value)),
            Err(error) => match self.young(&slot, OUTAGE_GRACE) {
                Some(value) => {
                    tracing::warn!(%error, "the store fails: going on with what was last read");
                    Ok(value)
                }
                None => Err(error),
            },
        }
    }

    /// Changes the value; `change` runs again on a newer one when somebody else was quicker.
    pub async fn change<E: From<HeadError>, R>(
        &self,
        name: &OwnerName,
        mut change: impl FnMut(&mut T) -> Result<R, E>,
    ) -> Result<R, E> {
        let slot = self.slot(name);
        let path = self.path(name);
        let mut tries = 0;
        loop {
            let asked = self.clock.monotonic();
            let (mut value, version) = self.read(name).await?;
            let result = change(&mut value)?;
            let bytes = serde_json::to_vec(&value).expect("records are plain data");
            let written = match &version {
                Some(version) => head::swap_head(&*self.store, &path, version, &bytes).await,
                None => head::create_head(&*self.store, &path, &bytes).await,
            };
            tries += 1;
            match written {
                Ok(_) => {
                    keep(&slot, asked, value);
                    return Ok(result);
                }
                Err(HeadError::Conflict(_) | HeadError::Exists(_)) if tries < TRIES_MAX => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn read(&self, name: &OwnerName) -> Result<(T, Option<head::HeadVersion>), HeadError> {
        let path = self.path(name);
        let Some(found) = head::find_head(&*self.store, &path).await? else {
            return Ok((T::default(), None));
        };
        let value = serde_json::from_slice(&found.data)
            .map_err(|_| HeadError::Corrupt { path, why: "not the JSON that belongs there" })?;
        Ok((value, Some(found.version)))
    }

    fn slot(&self, name: &OwnerName) -> Arc<Slot<T>> {
        let fresh = || {
            let slot = Slot { value: Mutex::default(), reading: tokio::sync::Mutex::default() };
            Ok::<_, std::convert::Infallible>(Arc::new(slot))
        };
        let Ok(slot) = self.kept.get_or_insert_with(name, fresh);
        slot
    }

    fn young(&self, slot: &Slot<T>, age_max: Duration) -> Option<Arc<T>> {
        let now = self.clock.monotonic();
        let kept = slot.value.lock();
        let (at, value) = kept.as_ref()?;
        (now.saturating_sub(*at) < age_max).then(|| Arc::clone(value))
    }

    fn path(&self, name: &OwnerName) -> Path {
        Path::from_iter([self.prefix.split('/').collect::<Vec<_>>(), vec![name.as_str()]].concat())
    }
}

fn keep<T>(slot: &Slot<T>, asked: Duration, value: T) -> Arc<T> {
    let value = Arc::new(value);
    let mut kept = slot.value.lock();
    if kept.as_ref().is_none_or(|(at, _)| *at <= asked) {
        *kept = Some((asked, Arc::clone(&value)));
    }
    value
}
