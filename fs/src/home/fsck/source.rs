//! Where a check reads: the records of one moment, and the segments beside them.
//!
//! A check follows records through several scans and so needs all of them from one moment:
//! [`TableView`] is a snapshot of the writer's, a [`TableReader`] for a check stays where it was
//! opened. What happened since shows in `latest`, which is asked only where an object is missing.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::home::error::Result;
use crate::home::table::{Table, TableReader, TableView, checkpoints};
use uuid::Uuid;

/// Records.
#[async_trait]
pub trait View: Send + Sync {
    /// A record.
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;
    /// Records in the order of their keys.
    async fn scan(&self, range: Range<Vec<u8>>, rows_max: usize) -> Result<Vec<(Bytes, Bytes)>>;
    /// Nothing more will be read.
    async fn done(&self) {}
}

/// The moments of the tables that are kept for snapshots.
#[async_trait]
pub trait Kept: Send + Sync {
    /// Names and numbers of all.
    async fn list(&self) -> Result<Vec<(String, Uuid)>>;
    /// The records of one.
    async fn open(&self, id: Uuid) -> Result<Box<dyn View>>;
}

#[async_trait]
impl Kept for Table {
    async fn list(&self) -> Result<Vec<(String, Uuid)>> {
        self.all_kept().await
    }
    async fn open(&self, id: Uuid) -> Result<Box<dyn View>> {
        Ok(Box::new(Opened(self.open_kept(id).await?)))
    }
}

#[async_trait]
impl Kept for Newest {
    async fn list(&self) -> Result<Vec<(String, Uuid)>> {
        checkpoints(&self.meta, self.tables.as_ref()).await
    }
    async fn open(&self, id: Uuid) -> Result<Box<dyn View>> {
        let (meta, path) = (Arc::clone(&self.meta), self.tables.as_ref());
        Ok(Box::new(Opened(TableReader::open_kept(meta, path, id).await?)))
    }
}

/// A reader that is closed when it is done.
struct Opened(TableReader);

#[async_trait]
impl View for Opened {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(key).await
    }
    async fn scan(&self, range: Range<Vec<u8>>, rows_max: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.0.scan(range, rows_max).await
    }
    async fn done(&self) {
        // What was read was read.
        drop(self.0.close().await);
    }
}

macro_rules! view {
    ($type:ty) => {
        #[async_trait]
        impl View for $type {
            async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
                <$type>::get(self, key).await
            }
            async fn scan(
                &self,
                range: Range<Vec<u8>>,
                rows_max: usize,
            ) -> Result<Vec<(Bytes, Bytes)>> {
                <$type>::scan(self, range, rows_max).await
            }
        }
    };
}

view!(Table);
view!(TableReader);
view!(TableView);

/// A home to check.
pub struct Source<'a> {
    /// Its records at one moment.
    pub view: &'a dyn View,
    /// Its records now.
    pub latest: &'a dyn View,
    /// What is kept for its snapshots.
    pub kept: &'a dyn Kept,
    /// Where its segments are.
    pub data: &'a dyn ObjectStore,
    /// Its folder there.
    pub prefix: &'a Path,
    /// The epoch of its writer. Objects of this epoch may not have a record yet.
    pub epoch: u64,
    /// A writer has it open: what nothing refers to may be on its way.
    pub in_use: bool,
}

/// Goes through a range of records, a page at a time.
pub struct Cursor<'a> {
    view: &'a dyn View,
    range: Range<Vec<u8>>,
    rows: usize,
    page: VecDeque<(Bytes, Bytes)>,
    done: bool,
}

impl<'a> Cursor<'a> {
    /// `rows` at a time: few, where values are large.
    pub fn new(view: &'a dyn View, range: Range<Vec<u8>>, rows: usize) -> Self {
        Self { view, range, rows, page: VecDeque::new(), done: false }
    }

    async fn fill(&mut self) -> Result<()> {
        if !self.page.is_empty() || self.done || self.range.is_empty() {
            return Ok(());
        }
        let rows = self.view.scan(self.range.clone(), self.rows).await?;
        self.done = rows.len() < self.rows;
        if let Some((last, _)) = rows.last() {
            self.range.start = [last, &[0][..]].concat();
        }
        self.page = rows.into();
        Ok(())
    }

    /// The key of the next record.
    ///
    /// # Errors
    /// What the tables say.
    pub async fn peek(&mut self) -> Result<Option<&Bytes>> {
        self.fill().await?;
        Ok(self.page.front().map(|(key, _)| key))
    }

    /// The next record.
    ///
    /// # Errors
    /// What the tables say.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        self.fill().await?;
        Ok(self.page.pop_front())
    }
}

/// The newest records of tables that somebody else writes: opened anew for every question, which
/// are few.
pub struct Newest {
    /// Where the tables are.
    pub meta: Arc<dyn ObjectStore>,
    /// Their folder there.
    pub tables: Path,
}

#[async_trait]
impl View for Newest {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let reader = TableReader::open(Arc::clone(&self.meta), self.tables.as_ref()).await?;
        let value = reader.get(key).await;
        reader.close().await?;
        value
    }

    async fn scan(&self, range: Range<Vec<u8>>, rows_max: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let reader = TableReader::open(Arc::clone(&self.meta), self.tables.as_ref()).await?;
        let rows = reader.scan(range, rows_max).await;
        reader.close().await?;
        rows
    }
}
