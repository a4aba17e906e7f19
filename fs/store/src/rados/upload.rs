//! Multipart uploads: each part becomes RADOS objects of its own, named by the upload's nonce and
//! their number; the object that names them makes all of them visible at once.

use super::STORE;
use super::core::Core;
use super::format::{self, Layout, Nonce};
use super::object;
use super::op::{Condition, Errno, Full, Put};
use super::put;
use crate::error::Detail;
use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    Attributes, MultipartUpload, PutMode, PutPayload, PutResult, Result, UploadPart,
};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct RadosUpload {
    core: Arc<Core>,
    full: Full,
    path: Path,
    attributes: Attributes,
    nonce: Nonce,
    layout: Layout,
    ended: bool,
}

impl RadosUpload {
    pub(super) fn begin(
        core: Arc<Core>,
        full: Full,
        path: Path,
        attributes: Attributes,
    ) -> RadosUpload {
        let nonce = core.next_nonce();
        let layout = Layout::default();
        RadosUpload { core, full, path, attributes, nonce, layout, ended: false }
    }
}

#[async_trait]
impl MultipartUpload for RadosUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let data = Bytes::from(data);
        // Numbers and lengths are given out here, in the order of the calls; the limit is that of
        // this moment.
        let limit = self.core.part_bytes() as usize;
        let mut pieces = Vec::new();
        for start in (0..data.len()).step_by(limit) {
            let piece = data.slice(start..data.len().min(start + limit));
            let name = format::part_name(&self.nonce, self.layout.parts());
            self.layout.push(piece.len() as u64);
            pieces.push((name, piece));
        }
        let (core, full, path) = (Arc::clone(&self.core), self.full, self.path.clone());
        Box::pin(async move {
            for (name, piece) in pieces {
                let len = piece.len() as u64;
                let put = Put { condition: Condition::New, data: piece.into(), xattr: None };
                let written = core.pool.put(&name, put, full).await;
                if let Err(Errno(libc::EFBIG | libc::EMSGSIZE)) = written {
                    // The next upload is cut smaller.
                    core.shrink_parts(len);
                }
                written.map_err(|errno| object::error(&core.pool, "put", &path, errno))?;
            }
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        if std::mem::replace(&mut self.ended, true) {
            let (object, why) = (self.path.to_string(), "the upload has ended".to_owned());
            return Err(Detail::Invalid { operation: "multipart", object, why }.at(STORE));
        }
        let parts = (self.nonce, self.layout.clone());
        let (mode, attributes) = (PutMode::Overwrite, &self.attributes);
        put::put_parts(&self.core, self.full, &self.path, parts, &mode, attributes).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.ended = true;
        // Parts that are still being written are left to a scan.
        put::remove_parts(&self.core, &self.nonce).await;
        Ok(())
    }
}

impl Drop for RadosUpload {
    fn drop(&mut self) {
        // A crash leaves the parts to a scan; an upload that is merely given up cleans up.
        if !self.ended && self.layout.parts() > 0 && tokio::runtime::Handle::try_current().is_ok() {
            put::remove_parts_later(&self.core, self.nonce);
        }
    }
}
