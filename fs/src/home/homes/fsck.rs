//! Checking and repairing homes by name.
//!
//! A check disturbs nobody: it reads what is durable. A repair is a writer, so it claims the
//! home first, and a living owner is a refusal that names it.

use super::record::home_prefix;
use super::serve::release;
use super::{Homes, HomesError, Result};
use crate::home::fsck::{self, Options, Progress, Repaired, Report};
use crate::home::owner;

impl Homes {
    /// Checks a home as it is in the store. With `in_use` a writer may have it open.
    ///
    /// # Errors
    /// `NotFound`, `Removed`, `Home` with what reading says.
    pub async fn check(
        &self,
        name: &str,
        options: Options,
        progress: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<Report> {
        self.read(name).await?.0.require_live()?;
        let prefix = home_prefix(name);
        let checked = fsck::check_closed(&self.meta, &self.data, &prefix, options, progress).await;
        checked.map_err(|source| HomesError::opening(name, source))
    }

    /// Repairs a home that nobody has open; with `take_over` whoever has it loses it.
    ///
    /// # Errors
    /// `NotFound`, `Removed`, `OwnedElsewhere`, `Home` with what reading or writing says.
    pub async fn repair(
        &self,
        name: &str,
        take_over: bool,
        options: Options,
        progress: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<Repaired> {
        self.read(name).await?.0.require_live()?;
        let claim = owner::claim(self.heartbeat(name).await?, name, take_over).await?;
        let (meta, data, prefix) = (&self.meta, &self.data, home_prefix(name));
        let repaired = fsck::repair(meta, data, &prefix, &self.shared, options, progress).await;
        release(&claim).await;
        repaired.map_err(|source| HomesError::opening(name, source))
    }
}
