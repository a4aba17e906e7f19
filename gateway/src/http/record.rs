//! One record per request: the line in the access log, the figures, the time it took. It rides on
//! the body of the answer and is written when the last byte is gone or the client is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::admission::Admitted;
use super::app::App;
use super::metrics::{Held, Operation};
use super::request::Connection;
use crate::auth::Caller;

/// Longer paths and agents are cut in the log.
const TEXT_BYTES_MAX: usize = 512;
static NEXT: AtomicU64 = AtomicU64::new(1);

/// What a handler found out about its request.
#[derive(Debug)]
pub struct Note {
    /// What it was.
    pub operation: Operation,
    /// Who asked; none for anonymous callers.
    pub who: Option<String>,
    /// Its place among its caller's requests, kept to the end of the answer.
    pub admitted: Option<Admitted>,
}

impl Note {
    /// Who asks is known now.
    pub fn know(&mut self, caller: &Caller) {
        self.who = (!caller.is_anonymous()).then(|| caller.label());
    }
}

impl Default for Note {
    fn default() -> Self {
        Self { operation: Operation::Other, who: None, admitted: None }
    }
}

/// What is logged and counted of one request.
#[derive(Debug)]
pub struct Record {
    app: Arc<App>,
    connection: Arc<Connection>,
    /// Its number, in every line of the log that belongs to it.
    pub id: u64,
    began: Instant,
    method: Method,
    // Shared with the request, not copied: most lines are never written.
    uri: Uri,
    agent: Option<HeaderValue>,
    status: u16,
    note: Note,
    sent: u64,
    _held: Held,
}

impl Record {
    /// Begins with the request.
    #[must_use]
    pub fn begin(
        app: &Arc<App>,
        connection: &Arc<Connection>,
        request: &Request<Incoming>,
    ) -> Self {
        Self {
            app: Arc::clone(app),
            connection: Arc::clone(connection),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            began: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            agent: request.headers().get(http::header::USER_AGENT).cloned(),
            status: 0,
            note: Note::default(),
            sent: 0,
            _held: Held::new(&app.metrics.in_flight),
        }
    }

    /// Goes on with the answer.
    #[must_use]
    pub fn ride(mut self, response: Response<Body>, note: Note) -> Response<Body> {
        self.status = response.status().as_u16();
        self.note = note;
        let (parts, body) = response.into_parts();
        if let Some(bytes) = body.size_hint().exact()
            && (body.is_end_stream() || bytes <= SMALL_BYTES)
        {
            // Goes out with the headers: nothing to wait for.
            self.sent = bytes;
            return Response::from_parts(parts, body);
        }
        Response::from_parts(parts, Body::new(Recorded { body, record: self }))
    }
}

/// Answers up to this are written at once.
const SMALL_BYTES: u64 = 64 << 10;

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        self.app.metrics.answered(self.note.operation, self.status, took);
        self.app.metrics.sent.inc_by(self.sent);
        let who = self.note.who.as_deref().unwrap_or("-");
        let ms = u64::try_from(took.as_micros()).unwrap_or(u64::MAX) as f64 / 1000.0;
        let agent = self.agent.as_ref().and_then(|agent| agent.to_str().ok()).unwrap_or("-");
        // Successful reads are by far the most: they are logged when asked for.
        let read = matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "yadokari::access",
                    request = self.id,
                    peer = %self.connection.facts.peer,
                    who,
                    method = %self.method,
                    path = %cut(self.uri.path()),
                    status = self.status,
                    sent = self.sent,
                    ms,
                    agent = %cut(agent),
                    "request"
                )
            };
        }
        if read && self.status < 400 {
            line!(debug);
        } else {
            line!(info);
        }
    }
}

/// Control characters and endless texts have no place in a log.
fn cut(text: &str) -> String {
    let end = text.len().min(TEXT_BYTES_MAX);
    let end = (0..=end).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text[..end].replace(|c: char| c.is_control(), "?")
}

/// A body with its record.
struct Recorded {
    body: Body,
    record: Record,
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.record.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
