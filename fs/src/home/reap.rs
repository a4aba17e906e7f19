//! The end of removed files with many extents: freed a batch at a time, in the background.

use super::core::Core;
use super::error::Result;
use super::extent::ExtentMap;
use super::key;
use super::record::ExtentRecord;
use super::types::Ino;

/// Extents that one step frees.
const ROWS: usize = 1024;

impl Core {
    /// Frees the orphans that nobody uses any more.
    ///
    /// # Errors
    /// What the tables say; what is left is tried again.
    pub async fn reap(&self) -> Result<()> {
        loop {
            let ready = {
                let state = self.state.lock();
                let idle = |ino: &&Ino| {
                    let file = state.inodes.get(ino).and_then(|i| i.file.as_ref());
                    file.is_none_or(|f| f.captures.is_empty())
                };
                state.reap.iter().find(idle).copied()
            };
            let Some(ino) = ready else { return Ok(()) };
            self.reap_one(ino).await?;
            self.state.lock().reap.remove(&ino);
        }
    }

    async fn reap_one(&self, ino: Ino) -> Result<()> {
        self.run(None, |state| state.xattrs(ino).map(drop)).await?;
        let (keyed, changed) = {
            let mut state = self.state.lock();
            let Some(inode) = state.inodes.get_mut(&ino) else { return Ok(()) };
            let keyed = inode.file.as_ref().is_some_and(|f| f.inline.is_none());
            if !keyed {
                state.bury(ino);
                return Ok(());
            }
            // The record goes on saying that the extents are records of their own.
            if let Some(file) = inode.file.as_mut() {
                file.extents = ExtentMap::unknown();
                file.durable = None;
            }
            (keyed, inode.changed)
        };
        debug_assert!(keyed, "inline extents are freed at once");
        // What is on its way into the table must be there before the table is asked.
        self.wait_durable(changed).await?;
        let mut range = key::range_of(key::EXTENT, ino);
        loop {
            let rows = self.table.scan(range.clone(), ROWS).await?;
            let Some((last, _)) = rows.last() else { break };
            range.start = [last, &[0][..]].concat();
            let mut records = Vec::with_capacity(rows.len());
            for (key, value) in &rows {
                records.push((key::Key::from_slice(key), ExtentRecord::decode(value)?));
            }
            let number = {
                let mut state = self.state.lock();
                for (key, record) in records {
                    state.txn.count(record.place, -1);
                    state.txn.delete(key);
                }
                state.txn.number
            };
            // One batch at a time: the transaction stays small and memory bounded.
            self.wait_durable(number).await?;
        }
        self.state.lock().bury(ino);
        self.wake.notify_one();
        Ok(())
    }
}
