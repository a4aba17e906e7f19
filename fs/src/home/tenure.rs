//! Whether this process still owns the home: asked before anything is acknowledged.
//!
//! A home does not know how ownership is kept; the owner record ([`super::owner`]) is one way.

use async_trait::async_trait;

use super::error::Result;

/// The right to acknowledge changes of a home.
#[async_trait]
pub trait Tenure: Send + Sync + 'static {
    /// True while this process may acknowledge. Never waits, costs nanoseconds.
    fn is_valid(&self) -> bool;

    /// Waits until it may again.
    ///
    /// # Errors
    /// `Fenced` where it never will.
    async fn admit(&self) -> Result<()>;

    /// True when it never will again. Never waits.
    fn is_lost(&self) -> bool {
        false
    }
}

/// Nobody else can have the home: tests, and stores in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Undisputed;

#[async_trait]
impl Tenure for Undisputed {
    fn is_valid(&self) -> bool {
        true
    }

    async fn admit(&self) -> Result<()> {
        Ok(())
    }
}
