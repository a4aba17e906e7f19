//! A repository: what is linked in it, its manifests, tags and referrers.
//!
//! All of it is one log, so that each change sees everything before it: no manifest is accepted
//! whose blob is being removed, whoever does either. Pure: no store, clock or chance in here.

mod keep;
mod op;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use keep::Ages;
pub(crate) use op::RepoOp;
pub(crate) use state::{Entry, Repo};
