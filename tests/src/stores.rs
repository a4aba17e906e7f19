//! The stores that every test body runs on, and the macro that makes one test for each.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

/// Which store a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// The embedded one.
    File,
    /// A real Ceph cluster of one node.
    Ceph,
}

impl StoreKind {
    /// A fresh, empty store; `data` is the instance's data directory.
    ///
    /// # Errors
    /// When Ceph cannot be started.
    pub fn fresh(self, data: &Path) -> Result<String> {
        match self {
            Self::File => Ok(format!("file://{}", data.join("store").display())),
            Self::Ceph => {
                static COUNTER: AtomicU32 = AtomicU32::new(0);
                let number = COUNTER.fetch_add(1, Ordering::Relaxed);
                let namespace = format!("test-{}-{number}", std::process::id());
                crate::ceph::shared_conf()?;
                Ok(crate::ceph::shared_url(&namespace))
            }
        }
    }
}

/// `on_every_store!(sentence => body)` makes the tests `sentence::on_files` and
/// `sentence::on_ceph` from `fn body(StoreKind) -> anyhow::Result<()>`.
#[macro_export]
macro_rules! on_every_store {
    ($($sentence:ident => $body:path;)+) => {
        $(mod $sentence {
            use super::*;

            #[test]
            fn on_files() -> anyhow::Result<()> {
                $body($crate::stores::StoreKind::File)
            }
            #[test]
            fn on_ceph() -> anyhow::Result<()> {
                $body($crate::stores::StoreKind::Ceph)
            }
        })+
    };
}
