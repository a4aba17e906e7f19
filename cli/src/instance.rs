//! The instance behind a data directory, running or not.

use crate::config::Settings;

/// The process that serves it, if one does.
pub fn holder(_settings: &Settings) -> Option<u32> {
    None
}
