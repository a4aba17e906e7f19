//! The operations of the distribution specification on the catalogue.
//!
//! Whoever calls has been let through already: rights are checked by the caller of this module,
//! for they decide how an answer must look as well. Nothing here knows HTTP.

mod manifests;
mod trouble;

use yadokari_catalog::{Catalog, CatalogError};

pub use manifests::{PushedManifest, ReferrersPage};
pub use trouble::{About, explain};

/// Choices of a registry.
#[derive(Clone, Copy, Debug, Default)]
pub struct RegistryOptions {
    /// Accept manifests whose blobs are not here.
    pub sparse: bool,
}

/// A registry over a catalogue. Clones share everything.
#[derive(Clone, Debug)]
pub struct Registry {
    /// What it works on.
    pub catalog: Catalog,
    options: RegistryOptions,
}

impl Registry {
    /// Over this catalogue.
    #[must_use]
    pub fn new(catalog: Catalog, options: RegistryOptions) -> Self {
        Self { catalog, options }
    }

    /// Does the store answer?
    ///
    /// # Errors
    /// What it says.
    pub async fn probe(&self) -> Result<(), CatalogError> {
        self.catalog.ping().await
    }
}
