//! The border between a mount and the store's list of homes.
//!
//! A mount asks by name, shows what a head says, and opens a home only when an operation goes
//! inside. Who may have a home made, and how, is decided behind this trait.

use std::sync::Arc;

use async_trait::async_trait;

use crate::home::{Attr, Home, Name, Result, Usage};

/// What is known of a home without opening it.
#[derive(Clone, Debug)]
pub struct Head {
    /// Name of the home: the name of its directory.
    pub name: Arc<str>,
    /// Number in front of the inode numbers; durable, never 0.
    pub volume: u32,
    /// Attributes of the root directory when the head was written.
    pub root: Attr,
    /// Whether the root directory has extended attributes (ACLs among them).
    pub root_xattrs: bool,
    /// Use and limits when the head was written.
    pub usage: Usage,
    /// Snapshots when the head was written.
    pub snapshots: u64,
    /// Bytes that only snapshots held when the head was written.
    pub snapshot_bytes: u64,
    /// Whether the schedule makes snapshots of it.
    pub scheduled: bool,
}

/// Bytes and inodes of the whole store.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// Bytes that the store can hold.
    pub bytes: u64,
    /// Bytes that are free.
    pub bytes_free: u64,
}

/// The homes of a store.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// The home called `name`, made where `uid` is the user whom it would belong to.
    ///
    /// # Errors
    /// `NotFound` where there is none and `uid` does not get one made.
    async fn find(&self, name: &Name, uid: u32) -> Result<Head>;

    /// Makes the home of the user called `name`, on behalf of `uid`.
    ///
    /// # Errors
    /// `Exists`; `NotPermitted` where no such user may have a home or `uid` may not ask for it.
    async fn make(&self, name: &Name, uid: u32) -> Result<Head>;

    /// All homes, by name.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn list(&self) -> Result<Vec<Head>>;

    /// Opens a home as its owner.
    ///
    /// # Errors
    /// `NotFound`, `Fenced` where another node serves it, `Unavailable`, `Corrupt`.
    async fn open(&self, head: &Head) -> Result<Home>;

    /// Told that an opened home is closed again; gives its head as it is now.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn closed(&self, head: &Head, root: Attr, usage: Usage) -> Result<Head>;

    /// Takes numbers for what needs its own in front of inode numbers; gives the first of `count`.
    ///
    /// # Errors
    /// `Unavailable`, `NoSpace`.
    async fn take_volumes(&self, count: u32) -> Result<u32>;

    /// The size of the store, where it can tell.
    fn space(&self) -> Option<Space>;

    /// What is wrong with the store at the moment, in one line. Never waits.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Owner of the directory that lists the homes: user and group. Members of the group may not
    /// enter it, so nobody but the user should be one.
    fn owner(&self) -> (u32, u32);
}
