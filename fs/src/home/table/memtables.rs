//! What the memtables of all tables of a process take together.
//!
//! A database writes its memtable out when it is large; fifty busy homes have fifty that are not.
//! What always holds: when they are too large together, the largest ones are being written out,
//! a few at a time. Nobody waits for it.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use slatedb::config::{FlushOptions, FlushType};

use super::{Change, Inner, MEMTABLE_BYTES, bytes_of};
use crate::home::maps::HashMap;

/// What a row takes in a memtable besides its key and value.
const ROW_BYTES: usize = 224;
/// What the database counts for a row besides its key and value, by which it freezes memtables.
const ROW_BYTES_COUNTED: usize = 16;
/// Memtables that are written out early at the same time.
const EARLY_AT_ONCE: usize = 2;

/// The memtables of all tables, by the numbers of the tables.
#[derive(Debug)]
pub struct Memtables {
    bytes_max: usize,
    tables: Mutex<HashMap<u64, Memtable>>,
}

#[derive(Debug)]
struct Memtable {
    /// What it takes.
    bytes: usize,
    /// What the database takes it for.
    counted: usize,
    /// It is being written out.
    leaving: bool,
    table: Weak<Inner>,
}

impl Memtables {
    /// They take about `bytes_max` in all.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, tables: Mutex::default() })
    }

    /// These rows were written to `table`.
    pub fn note(self: &Arc<Self>, table: &Arc<Inner>, rows: &[Change]) {
        let plain: usize = rows.iter().map(bytes_of).sum();
        {
            let mut tables = self.tables.lock();
            let memtable = tables.entry(table.cache_id).or_insert_with(|| Memtable {
                bytes: 0,
                counted: 0,
                leaving: false,
                table: Arc::downgrade(table),
            });
            memtable.bytes += plain + rows.len() * ROW_BYTES;
            memtable.counted += plain + rows.len() * ROW_BYTES_COUNTED;
            if memtable.counted >= MEMTABLE_BYTES {
                // The database does it by itself.
                (memtable.bytes, memtable.counted) = (0, 0);
            }
        }
        while let Some((number, table)) = self.next_to_leave() {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                let mut leaving = Some((number, table));
                while let Some((number, table)) = leaving {
                    this.write_out(number, &table).await;
                    leaving = this.next_to_leave();
                }
            });
        }
    }

    /// About what all of them take.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.tables.lock().values().map(|memtable| memtable.bytes).sum()
    }

    /// `table` is closed.
    pub fn forget(&self, table: u64) {
        self.tables.lock().remove(&table);
    }

    /// The largest memtable, where all together are too large.
    fn next_to_leave(&self) -> Option<(u64, Arc<Inner>)> {
        let mut tables = self.tables.lock();
        tables.retain(|_, memtable| memtable.table.strong_count() > 0);
        let all: usize = tables.values().map(|memtable| memtable.bytes).sum();
        let leaving = tables.values().filter(|memtable| memtable.leaving).count();
        if all <= self.bytes_max || leaving >= EARLY_AT_ONCE {
            return None;
        }
        let staying = tables.iter_mut().filter(|(_, memtable)| !memtable.leaving);
        let (number, largest) = staying.max_by_key(|(_, memtable)| memtable.bytes)?;
        let table = largest.table.upgrade()?;
        largest.leaving = true;
        Some((*number, table))
    }

    async fn write_out(&self, number: u64, table: &Arc<Inner>) {
        let before = self.tables.lock().get(&number).map_or((0, 0), |m| (m.bytes, m.counted));
        let options = FlushOptions { flush_type: FlushType::MemTable };
        if let Err(error) = table.db().flush_with_options(options).await {
            // Whoever writes next meets it too, and does something about it.
            tracing::debug!(tables = %table.path, %error, "a memtable was not written out early");
        }
        if let Some(memtable) = self.tables.lock().get_mut(&number) {
            memtable.bytes = memtable.bytes.saturating_sub(before.0);
            memtable.counted = memtable.counted.saturating_sub(before.1);
            memtable.leaving = false;
        }
    }
}
