//! What is wrong with the store at the moment, in one line, said once when it begins and ends.

use object_store::path::Path;
use parking_lot::Mutex;

/// The last failure of the store that is not over.
#[derive(Debug, Default)]
pub struct Troubles {
    last: Mutex<Option<String>>,
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

    /// The failure that is not over.
    #[must_use]
    pub fn last(&self) -> Option<String> {
        self.last.lock().clone()
    }
}
