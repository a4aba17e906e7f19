//! How a request runs: at once where it can be answered from memory, in the runtime where it
//! would wait for the store.
//!
//! The kernel's thread builds the future of the operation and polls it once. Nearly always that
//! is all: no task, no hand-over, no wake-up. Where it would wait, the future moves into the
//! runtime together with the reply, and the thread takes the next request. Of those that wait
//! for one home only so many run at once; the future of one that finds no place is dropped and
//! made anew when its turn comes, which the home allows (a first poll leaves no trace).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::Instrument;

use super::errno::is_fault;
use crate::home::{Error, ErrorKind, Result};
use crate::view::{CROWDED_WRITE_BYTES, Target, View, add, is_crowded, split};

/// One request: what it is called in the log, and whom it is for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Name of the operation.
    pub op: &'static str,
    /// Number of the inode on the mount.
    pub number: u64,
    /// Whom it is for.
    pub target: Target,
    /// Bytes of data that it brings along.
    pub bytes: u64,
    /// That data, where a part of it may be taken alone.
    pub data: Option<Payload>,
}

/// The data of a write. What is not taken of it when it must wait is given back to memory.
#[derive(Clone, Debug)]
pub struct Payload(Arc<Mutex<Bytes>>);

impl Payload {
    /// All of the data.
    #[must_use]
    pub fn new(data: Bytes) -> Self {
        Self(Arc::new(Mutex::new(data)))
    }

    /// What there is of it.
    #[must_use]
    pub fn get(&self) -> Bytes {
        self.0.lock().clone()
    }

    /// Keeps the first `len` bytes only; gives how many there are then.
    fn cut(&self, len: usize) -> u64 {
        let mut data = self.0.lock();
        *data = Bytes::copy_from_slice(&data[..len.min(data.len())]);
        data.len() as u64
    }
}

/// Runs requests of one mount.
#[derive(Clone, Debug)]
pub struct Runner {
    /// The mount.
    pub view: Arc<View>,
    /// Where requests wait.
    pub runtime: Handle,
}

impl Runner {
    /// Runs `make`'s future and gives its result to `done`, now or later.
    pub fn run<T, F, Fut, D>(&self, request: Request, make: F, done: D)
    where
        T: Send + 'static,
        F: Fn(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
        D: FnOnce(Result<T>) + Send + 'static,
    {
        let span = tracing::debug_span!("request", op = request.op, ino = request.number);
        if let Some(at) = request.target.attachment() {
            add(&at.slot.counters.requests, 1);
        }
        let mut future = Box::pin(make(request.target.clone()));
        let _runtime = self.runtime.enter();
        let first = span.in_scope(|| poll_once(future.as_mut()));
        match first {
            Poll::Ready(result) => finish(&request, result, done),
            Poll::Pending => self.wait(request, span, future, make, done),
        }
    }

    fn wait<T, F, Fut, D>(
        &self,
        mut request: Request,
        span: tracing::Span,
        mut future: Pin<Box<Fut>>,
        make: F,
        done: D,
    ) where
        T: Send + 'static,
        F: Fn(Target) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
        D: FnOnce(Result<T>) + Send + 'static,
    {
        if let Some(at) = request.target.attachment() {
            add(&at.slot.counters.waited, 1);
        }
        if let Some(data) = request.data.as_ref().filter(|_| is_crowded(request.bytes)) {
            request.bytes = data.cut(CROWDED_WRITE_BYTES);
            // The first one goes before the next is made: it holds all of the data.
            drop(future);
            future = Box::pin(make(request.target.clone()));
        }
        let gate = self.view.gate(&request.target);
        let held = match gate.hold(request.bytes) {
            Ok(held) => held,
            Err(error) => return finish(&request, Err(error), done),
        };
        match gate.try_enter() {
            Some(place) => {
                self.runtime.spawn(
                    async move {
                        let result = future.await;
                        drop((place, held));
                        finish(&request, result, done);
                    }
                    .instrument(span),
                );
            }
            None => {
                drop(future);
                let turn = gate.enter();
                self.runtime.spawn(
                    async move {
                        let place = turn.await;
                        let result = make(request.target.clone()).await;
                        drop((place, held));
                        finish(&request, result, done);
                    }
                    .instrument(span),
                );
            }
        }
    }

    /// Runs a future that may wait for other users for as long as it likes, outside of the
    /// bounds: waiting for a lock holds nothing but itself.
    pub fn run_unbounded<T, Fut, D>(&self, request: Request, future: Fut, done: D)
    where
        T: Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
        D: FnOnce(Result<T>) + Send + 'static,
    {
        self.runtime.spawn(async move {
            let result = future.await;
            finish(&request, result, done);
        });
    }
}

/// Polls once. A panic of one operation must not end the thread that serves all the others.
fn poll_once<T>(future: Pin<&mut impl Future<Output = Result<T>>>) -> Poll<Result<T>> {
    let mut context = Context::from_waker(Waker::noop());
    catch_unwind(AssertUnwindSafe(|| future.poll(&mut context)))
        .unwrap_or_else(|_| Poll::Ready(Err(Error::corrupt("an operation panicked"))))
}

/// Logs what an operator must hear of, once, and answers.
fn finish<T>(request: &Request, result: Result<T>, done: impl FnOnce(Result<T>)) {
    if let Err(error) = &result
        && is_fault(error)
    {
        let (home, ino) = match request.target.attachment() {
            None => ("", request.number),
            Some(at) => {
                add(&at.slot.counters.failed, 1);
                if matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Closed) {
                    at.slot.give_up();
                }
                (&*at.slot.name, split(request.number).1.0)
            }
        };
        tracing::error!(home, ino, op = request.op, %error, "an operation failed");
    }
    done(result);
}
