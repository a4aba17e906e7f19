//! Records of chunks, for who reads. The records of chunks that were born together are read
//! together.
//!
//! What always holds: a record may be older than what the tables say, but it is one that they
//! said: the chunk has that content, and lay there. Who finds nothing there forgets the record
//! and asks again; nobody counts by these records.

use parking_lot::Mutex;
use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;

use super::super::ahead::Ahead;
use super::super::error::{Error, ErrorKind, Result};
use super::super::key;
use super::super::maps::{HashMap, SameHash};
use super::super::parked::ROWS_OF_A_SCAN;
use super::super::record::ChunkRecord;
use super::super::segment::ChunkId;
use super::super::table::Table;
use super::cache::new_cache;

/// Records that are kept per home.
const RECORDS_MAX: usize = 16 << 10;
/// The least and the most records that are brought along with one.
const AHEAD_MIN: usize = 4;
const AHEAD_MAX: usize = 512;

/// What is known of a home's chunks.
#[derive(Debug)]
pub struct Records {
    known: Cache<ChunkId, ChunkRecord, UnitWeighter, SameHash>,
    births: Mutex<HashMap<ChunkId, ChunkRecord>>,
    ahead: Mutex<Ahead>,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            known: new_cache(RECORDS_MAX, RECORDS_MAX as u64, UnitWeighter),
            births: Mutex::default(),
            ahead: Mutex::new(Ahead::new(AHEAD_MIN, AHEAD_MAX, ROWS_OF_A_SCAN)),
        }
    }
}

impl Records {
    /// Records that the tables do not show yet.
    pub fn remember_births(&self, births: impl Iterator<Item = (ChunkId, ChunkRecord)>) {
        self.births.lock().extend(births);
    }

    /// The tables show them now.
    pub fn forget_births(&self, births: impl Iterator<Item = ChunkId>) {
        let mut known = self.births.lock();
        for id in births {
            known.remove(&id);
        }
    }

    /// A chunk was freed or moved, or does not lie where its record says.
    pub fn forget(&self, id: ChunkId) {
        self.known.remove(&id);
    }

    /// The record of a chunk.
    ///
    /// # Errors
    /// What the tables say.
    pub async fn get(&self, table: &Table, id: ChunkId) -> Result<Option<ChunkRecord>> {
        if let Some(record) = self.births.lock().get(&id) {
            return Ok(Some(*record));
        }
        if let Some(record) = self.known.get(&id) {
            self.ahead.lock().used(1);
            return Ok(Some(record));
        }
        let rows_max = 1 + self.ahead.lock().amount();
        let end = key::chunk(ChunkId { number: u32::MAX, ..id });
        let rows = match table.scan(key::chunk(id).to_vec()..end.to_vec(), rows_max).await {
            // It may be others that are damaged.
            Err(Error(ErrorKind::Corrupt(_))) => {
                let Some(value) = table.get(&key::chunk(id)).await? else { return Ok(None) };
                return Ok(Some(ChunkRecord::decode(&value)?));
            }
            rows => rows?,
        };
        let Some((own, others)) = rows.split_first() else { return Ok(None) };
        if key::chunk_of(&own.0) != Some(id) {
            return Ok(None);
        }
        let record = ChunkRecord::decode(&own.1)?;
        self.known.insert(id, record);
        let mut brought = 0;
        for (key, value) in others {
            // One that cannot be read hurts only who asks for it.
            if let (Some(id), Ok(record)) = (key::chunk_of(key), ChunkRecord::decode(value))
                && self.known.peek(&id).is_none()
            {
                self.known.insert(id, record);
                brought += 1;
            }
        }
        self.ahead.lock().bring(brought);
        Ok(Some(record))
    }
}
