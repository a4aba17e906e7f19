//! What is wrong with the store at the moment, in one line, said once when it begins and ends;
//! and whether it is full, so that writers hear of it at once and not after a time-out.

use std::sync::Arc;

use object_store::path::Path;
use parking_lot::Mutex;
use tokio::sync::watch;

/// The last failure of the store that is not over.
#[derive(Debug)]
pub struct Troubles {
    last: Mutex<Option<String>>,
    /// Writes of data that wait for room.
    waiting: watch::Sender<usize>,
    /// The tables' log finds no room.
    log_full: watch::Sender<bool>,
}

impl Default for Troubles {
    fn default() -> Self {
        Self {
            last: Mutex::new(None),
            waiting: watch::Sender::new(0),
            log_full: watch::Sender::new(false),
        }
    }
}

impl Troubles {
    /// A request failed and will be tried again.
    pub fn store_fails(&self, home: &str, path: &Path, error: &object_store::Error) {
        let mut last = self.last.lock();
        if last.is_none() {
            tracing::warn!(home, %path, %error, "the store fails; trying again");
        }
        *last = Some(format!("{path}: {error}"));
    }

    /// A request succeeded.
    pub fn store_works(&self) {
        if let Some(error) = self.last.lock().take() {
            tracing::info!(error, "the store works again");
        }
    }

    /// Data finds no room, and will be tried again while the guard lives.
    #[must_use]
    pub fn store_is_full(self: &Arc<Self>) -> Waiting {
        self.waiting.send_modify(|waiting| *waiting += 1);
        Waiting(Arc::clone(self))
    }

    /// True while data that was acknowledged waits for room in the store.
    #[must_use]
    pub fn is_full(&self) -> bool {
        *self.waiting.borrow() > 0
    }

    /// Waits until the store is full.
    pub async fn wait_full(&self) {
        let mut waiting = self.waiting.subscribe();
        // The sender lives in self, so the wait can only end by a full store.
        let _full = waiting.wait_for(|waiting| *waiting > 0).await;
    }

    /// The tables' log finds no room, or finds it again.
    pub fn set_log_full(&self, full: bool) {
        self.log_full.send_if_modified(|was| std::mem::replace(was, full) != full);
    }

    /// Waits until the tables' log finds no room: then nothing can be committed.
    pub async fn wait_log_full(&self) {
        let mut full = self.log_full.subscribe();
        // The sender lives in self, so the wait can only end by a full store.
        let _full = full.wait_for(|full| *full).await;
    }

    /// The failure that is not over.
    #[must_use]
    pub fn last(&self) -> Option<String> {
        self.last.lock().clone()
    }
}

/// A write of data that waits for room.
#[derive(Debug)]
pub struct Waiting(Arc<Troubles>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|waiting| *waiting -= 1);
    }
}
