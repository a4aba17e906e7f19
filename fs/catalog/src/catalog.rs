//! The catalogue's handle: what all its parts share.

use std::sync::Arc;

use yadokari_store::Store;

use crate::error::Result;
use crate::options::Options;

/// The catalogue of a store, as one instance sees it. Clones share everything.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) options: Options,
}

impl Catalog {
    /// The catalogue of a store. Reads and writes nothing yet; an empty store is a catalogue.
    #[must_use]
    pub fn new(store: &Store, options: Options) -> Self {
        Catalog { inner: Arc::new(Inner { store: store.clone(), options }) }
    }

    /// What it was made with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Whether the store answers: reads one object, at most. For readiness probes.
    ///
    /// # Errors
    /// What the store says.
    pub async fn ping(&self) -> Result<()> {
        todo!()
    }

    /// Runs as long as the instance serves: every half second it settles what this instance
    /// still owes to ledgers and change counters. Without it counters lag and intents stay for
    /// others to finish; nothing else depends on it.
    pub async fn tend(&self) {
        todo!()
    }

    /// Settles what this instance owes, now. For the end of a graceful shutdown.
    ///
    /// # Errors
    /// What the store says; others will finish then.
    pub async fn flush(&self) -> Result<()> {
        todo!()
    }
}
