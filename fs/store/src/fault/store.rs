//! The wrapper itself: asks the plan about each operation and does what it says.

use super::plan::{Action, Crash, FaultPlan, OpKind};
use super::state::{Counters, FaultControl, Verdict};
use crate::error::{Detail, Kind};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, UploadPart,
};
use std::fmt;
use std::sync::Arc;

const STORE: &str = "fault";

/// An object store with a [`FaultPlan`] in front of it.
#[derive(Debug, Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    control: FaultControl,
}

/// What is left to do with an operation once its fault has had its way with its beginning.
enum Step {
    /// Do it and answer.
    Do,
    /// Do it with the data cut or changed as the action says.
    Bend(Action),
    /// Do it, then fail with this.
    DoThenFail(Error),
}

impl FaultStore {
    pub fn new(inner: Arc<dyn ObjectStore>, plan: FaultPlan) -> Self {
        FaultStore::with_control(inner, FaultControl::new(plan))
    }

    /// Several stores (data and meta, say) under one plan: one count, one crash.
    pub fn with_control(inner: Arc<dyn ObjectStore>, control: FaultControl) -> Self {
        FaultStore { inner, control }
    }

    pub fn control(&self) -> &FaultControl {
        &self.control
    }

    pub fn counters(&self) -> Counters {
        self.control.counters()
    }

    async fn begin(&self, kind: OpKind, path: &Path) -> Result<Step> {
        let action = match self.control.judge(kind, path) {
            Verdict::Pass => return Ok(Step::Do),
            Verdict::Dead => return Err(dead(kind, path)),
            Verdict::Act(action) => action,
        };
        match action {
            Action::Fail(error) => Err(fail(error, kind, path)),
            Action::LoseAnswer(error) => Ok(Step::DoThenFail(fail(error, kind, path))),
            Action::Delay(time) => {
                tokio::time::sleep(time).await;
                Ok(Step::Do)
            }
            Action::Hang => {
                self.control.hang().await;
                // The process may have "died" while this waited.
                if self.control.crashed() { Err(dead(kind, path)) } else { Ok(Step::Do) }
            }
            Action::Crash(Crash::Before) => Err(dead(kind, path)),
            Action::Crash(Crash::After) => Ok(Step::DoThenFail(dead(kind, path))),
            bend => Ok(Step::Bend(bend)),
        }
    }

    async fn simple<T>(
        &self,
        kind: OpKind,
        path: &Path,
        run: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match self.begin(kind, path).await? {
            Step::Do => run.await,
            Step::Bend(Action::Crash(_)) => Err(dead(kind, path)),
            Step::Bend(_) => run.await,
            Step::DoThenFail(error) => {
                // The operation's own outcome is what nobody hears of.
                let _lost = run.await.is_ok();
                Err(error)
            }
        }
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let kind = match opts.mode {
            PutMode::Overwrite => OpKind::Put,
            PutMode::Create => OpKind::Create,
            PutMode::Update(_) => OpKind::Update,
        };
        match self.begin(kind, location).await? {
            Step::Do => self.inner.put_opts(location, payload, opts).await,
            Step::Bend(Action::Truncate { keep }) => {
                self.inner.put_opts(location, cut(&payload, keep), opts).await
            }
            Step::Bend(Action::Crash(Crash::Half)) => {
                let half = cut(&payload, payload.content_length() as u64 / 2);
                let _lost = self.inner.put_opts(location, half, opts).await.is_ok();
                Err(dead(kind, location))
            }
            Step::Bend(_) => self.inner.put_opts(location, payload, opts).await,
            Step::DoThenFail(error) => {
                let _lost = self.inner.put_opts(location, payload, opts).await.is_ok();
                Err(error)
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let run = self.inner.put_multipart_opts(location, opts);
        let inner = self.simple(OpKind::Multipart, location, run).await?;
        Ok(Box::new(FaultUpload { inner, store: self.clone(), location: location.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let kind = if options.head { OpKind::Head } else { OpKind::Get };
        match self.begin(kind, location).await? {
            Step::Bend(Action::Crash(_)) => Err(dead(kind, location)),
            Step::Bend(action) if kind == OpKind::Get => {
                bend_result(self.inner.get_opts(location, options).await?, &action).await
            }
            Step::Do | Step::Bend(_) => self.inner.get_opts(location, options).await,
            Step::DoThenFail(error) => Err(error),
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        // One after the other: a plan that counts operations must see them in their order.
        locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    let location = location?;
                    let run = this.inner.delete(&location);
                    this.simple(OpKind::Delete, &location, run).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, list) = (self.clone(), self.inner.list(prefix));
        let prefix = prefix.cloned().unwrap_or_default();
        stream::once(async move { this.simple(OpKind::List, &prefix, async { Ok(list) }).await })
            .try_flatten()
            .boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, list) = (self.clone(), self.inner.list_with_offset(prefix, offset));
        let prefix = prefix.cloned().unwrap_or_default();
        stream::once(async move { this.simple(OpKind::List, &prefix, async { Ok(list) }).await })
            .try_flatten()
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.cloned().unwrap_or_default();
        self.simple(OpKind::List, &path, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.simple(OpKind::Copy, to, self.inner.copy_opts(from, to, options)).await
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

#[derive(Debug)]
struct FaultUpload {
    inner: Box<dyn MultipartUpload>,
    store: FaultStore,
    location: Path,
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, location) = (self.store.clone(), self.location.clone());
        let part = self.inner.put_part(data);
        Box::pin(async move { store.simple(OpKind::Part, &location, part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let run = self.inner.complete();
        self.store.simple(OpKind::Complete, &self.location, run).await
    }

    async fn abort(&mut self) -> Result<()> {
        if self.store.control.crashed() {
            return Err(dead(OpKind::Delete, &self.location));
        }
        self.inner.abort().await
    }
}

async fn bend_result(result: GetResult, action: &Action) -> Result<GetResult> {
    let (meta, range) = (result.meta.clone(), result.range.clone());
    let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
    let mut bytes = result.bytes().await?;
    match action {
        Action::Truncate { keep } => bytes.truncate(usize::try_from(*keep).unwrap_or(usize::MAX)),
        Action::FlipBit { bit } if !bytes.is_empty() => {
            let mut changed = bytes.to_vec();
            let bits = changed.len() as u64 * 8;
            let bit = bit % bits;
            changed[(bit / 8) as usize] ^= 1 << (bit % 8);
            bytes = Bytes::from(changed);
        }
        _ => {}
    }
    let payload = GetResultPayload::Stream(stream::once(async move { Ok(bytes) }).boxed());
    Ok(GetResult { payload, meta, range, attributes, extensions })
}

fn cut(payload: &PutPayload, keep: u64) -> PutPayload {
    let mut left = usize::try_from(keep).unwrap_or(usize::MAX);
    let mut kept = Vec::new();
    for chunk in payload.iter() {
        kept.push(chunk.slice(..left.min(chunk.len())));
        left -= left.min(chunk.len());
    }
    kept.into_iter().collect()
}

fn dead(kind: OpKind, path: &Path) -> Error {
    let why = "the process has crashed (injected)".to_owned();
    Detail::Unavailable { operation: kind.name(), object: path.to_string(), why }.at(STORE)
}

fn fail(error: Kind, kind: OpKind, path: &Path) -> Error {
    let (operation, object) = (kind.name(), path.to_string());
    let path = object.clone();
    let why = "injected".to_owned();
    let source = "injected".into();
    match error {
        Kind::NotFound => Error::NotFound { path, source },
        Kind::Exists => Error::AlreadyExists { path, source },
        Kind::Conflict => Error::Precondition { path, source },
        Kind::NotModified => Error::NotModified { path, source },
        Kind::Denied => Error::PermissionDenied { path, source },
        Kind::NoSpace => Detail::NoSpace { medium: "the plan".to_owned(), object }.at(STORE),
        Kind::Unavailable => Detail::Unavailable { operation, object, why }.at(STORE),
        Kind::Corrupt => Detail::Corrupt { object, why }.at(STORE),
        Kind::Invalid => Detail::Invalid { operation, object, why }.at(STORE),
    }
}
