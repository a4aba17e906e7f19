//! Upload sessions that nobody writes to any more.

use object_store::path::Path;

use super::Round;
use crate::catalog::millis;
use crate::cell::{self, Cell};
use crate::error::Result;
use crate::upload::{SESSIONS, Session, Stage, session_at};

impl Round<'_> {
    /// Ends sessions that expired, and what others began to end.
    pub(super) async fn sessions(&mut self) -> Result<()> {
        let inner = &self.catalog.inner;
        let (meta, writer) = (&*inner.store.meta, &inner.writer);
        let expiry = millis(inner.options.upload_expiry);
        for (path, _, _) in self.catalog.objects(meta, &Path::from(SESSIONS)).await? {
            let Some(id) = session_at(&path) else {
                continue;
            };
            let cell: Option<Cell<Session>> = cell::read_again(meta, writer, &path).await?;
            let Some(cell) = cell else {
                continue;
            };
            let idle = self.catalog.now_ms().saturating_sub(cell.value.touched_ms);
            if idle >= expiry || matches!(cell.value.stage, Stage::Ended { .. }) {
                let ended = self.options.dry_run || self.catalog.end_session(&id, cell).await?;
                self.report.uploads += u64::from(ended);
            }
            self.pause().await?;
        }
        Ok(())
    }
}
