//! `rados://`: to come.

use crate::error::StoreError;
use crate::store::{ScanReport, StoreOptions, Usage};
use crate::url::RadosUrl;
use object_store::{ObjectStore, Result};
use std::sync::Arc;

#[derive(Debug, Clone)]
pub(crate) struct RadosStores {
    pub(crate) data: Arc<dyn ObjectStore>,
    pub(crate) meta: Arc<dyn ObjectStore>,
}

impl RadosStores {
    pub(crate) async fn open(_: &RadosUrl, _: &StoreOptions) -> Result<RadosStores, StoreError> {
        Err(StoreError::NotBuilt {
            scheme: "rados",
            feature: "rados",
        })
    }

    pub(crate) async fn usage(&self) -> Result<Usage> {
        unimplemented!("no store of this kind can be open")
    }

    pub(crate) async fn scan(&self, _: bool) -> Result<ScanReport> {
        unimplemented!("no store of this kind can be open")
    }
}
