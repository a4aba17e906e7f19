//! All homes that this daemon has seen, by volume and by name.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::directory::{Directory, Head};
use super::slot::Slot;

/// The homes of a daemon. Every mount of the daemon shares one table, so that a home is opened
/// once, however many mounts show it.
pub struct Table {
    directory: Arc<dyn Directory>,
    slots: RwLock<HashMap<u32, Arc<Slot>>>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("slots", &*self.slots.read()).finish_non_exhaustive()
    }
}

impl Table {
    /// An empty table over `directory`.
    #[must_use]
    pub fn new(directory: Arc<dyn Directory>) -> Arc<Self> {
        Arc::new(Self { directory, slots: RwLock::default() })
    }

    /// The list of homes behind the table.
    #[must_use]
    pub fn directory(&self) -> &Arc<dyn Directory> {
        &self.directory
    }

    /// The place of a home, made at the first look; a home that is closed gets the newer head.
    pub fn slot(&self, head: &Head) -> Arc<Slot> {
        if let Some(slot) = self.by_volume(head.volume) {
            if slot.opened().is_none() {
                slot.set_head(head.clone());
            }
            return slot;
        }
        let mut slots = self.slots.write();
        let slot = slots
            .entry(head.volume)
            .or_insert_with(|| Slot::new(Arc::clone(&self.directory), head.clone()));
        Arc::clone(slot)
    }

    /// The place of a home that was seen before.
    #[must_use]
    pub fn by_volume(&self, volume: u32) -> Option<Arc<Slot>> {
        self.slots.read().get(&volume).cloned()
    }

    /// The place of a home that was seen before, by its name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<Arc<Slot>> {
        self.slots.read().values().find(|slot| &*slot.name == name).cloned()
    }

    /// Forgets a home that was removed.
    pub fn remove(&self, volume: u32) {
        self.slots.write().remove(&volume);
    }

    /// All homes that were seen, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Slot>> {
        let mut all: Vec<_> = self.slots.read().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}
