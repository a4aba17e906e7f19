//! What the daemon needs of the store's records of homes; one implementation per kind of store.

use async_trait::async_trait;

use crate::home::{Attr, Home, Quota, Result, Usage};
use crate::view::{Head, Space};

/// A home that is to be made.
#[derive(Clone, Debug)]
pub struct NewHome {
    /// Its name.
    pub name: String,
    /// Owner of its root directory: user and group.
    pub owner: (u32, u32),
    /// Its limits.
    pub quota: Quota,
}

/// The records of homes in a store.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    /// One home; `None` where there is none or it was removed.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    async fn show(&self, name: &str) -> Result<Option<Head>>;

    /// All homes.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn list(&self) -> Result<Vec<Head>>;

    /// Makes an empty home.
    ///
    /// # Errors
    /// `Exists` where there is one; `NotPermitted` where one was removed and can be restored.
    async fn create(&self, new: NewHome) -> Result<Head>;

    /// Makes an empty home that nobody sees before it is [`Records::filled`], and opens it. One
    /// whose filling never ends is deleted in time.
    ///
    /// # Errors
    /// As for [`Records::create`] and [`Records::open`].
    async fn begin(&self, new: NewHome) -> Result<(Head, Home)>;

    /// Shows a home that was filled and closed.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn filled(&self, head: &Head, root: Attr, usage: Usage) -> Result<Head>;

    /// Changes the limits of a home that is not open here.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    async fn set_quota(&self, name: &str, quota: Quota) -> Result<Head>;

    /// Removes a home that is not open; it can be restored for some days.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    async fn remove(&self, name: &str) -> Result<()>;

    /// Deletes a home that was just made and not filled whole, for good.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    async fn discard(&self, name: &str) -> Result<()>;

    /// Undoes a removal.
    ///
    /// # Errors
    /// `NotFound`, `Exists`, `Unavailable`.
    async fn restore(&self, name: &str) -> Result<Head>;

    /// Opens a home as its owner.
    ///
    /// # Errors
    /// `NotFound`; `Fenced` where another owner lives; `Unavailable`, `Corrupt`.
    async fn open(&self, head: &Head) -> Result<Home>;

    /// Notes what a head shows of a home that was closed here.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn closed(&self, head: &Head, root: Attr, usage: Usage) -> Result<Head>;

    /// Takes numbers that no home and no snapshot ever has had; gives the first of `count`.
    ///
    /// # Errors
    /// `Unavailable`, `NoSpace`.
    async fn take_volumes(&self, count: u32) -> Result<u32>;

    /// Switches the schedule of snapshots of a home on or off.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    async fn set_schedule(&self, name: &str, on: bool) -> Result<Head>;

    /// The size of the store, where it can tell. Never waits.
    fn space(&self) -> Option<Space>;

    /// What is wrong with the store at the moment, in one line. Never waits.
    fn trouble(&self) -> Option<String> {
        None
    }
}
