//! The first and the last step of every request: which part of the gateway answers, what becomes
//! of an error, and the record of it all.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use futures::FutureExt;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tower_service::Service;

use super::answer;
use super::app::App;
use super::metrics::Operation;
use super::record::{Note, Record};
use super::request::Connection;
use super::server::Role;
use super::{api, health, token, v2};
use crate::oci::{ApiError, Code};

/// Answers one request.
///
/// # Errors
/// Never: everything becomes an answer.
pub async fn dispatch(
    app: Arc<App>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let record = Record::begin(&app, &connection, &request);
    let id = record.id;
    let answering = AssertUnwindSafe(answer(&app, &connection, request, id)).catch_unwind();
    let (response, note) = answering.await.unwrap_or_else(|_| {
        // The panic itself was printed where it happened.
        tracing::error!(request = id, "a request panicked");
        (answer::error(&ApiError::new(Code::Unknown)), Note::default())
    });
    Ok(record.ride(response, note))
}

async fn answer(
    app: &Arc<App>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
    id: u64,
) -> (Response<Body>, Note) {
    if connection.role != Role::Metrics && is_v2(request.uri().path()) {
        return v2::answer(app, connection, request, id).await;
    }
    if let Some(response) = health::answer(app, connection, &request).await {
        return (response, Note::default());
    }
    if connection.role == Role::Metrics {
        return (answer::empty(StatusCode::NOT_FOUND), Note::default());
    }
    if request.uri().path() == token::PATH {
        let note = Note { operation: Operation::Token, ..Note::default() };
        return (token::answer(app, connection, request).await, note);
    }
    if api::is_api(request.uri().path()) {
        return api::answer(app, connection, request, id).await;
    }
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Arc::clone(connection));
    let mut router = app.router.clone();
    let Ok(response) = router.call(request).await;
    (response, Note::default())
}

fn is_v2(path: &str) -> bool {
    path.strip_prefix("/v2").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The answer to an error, with its line in the log: the one place where errors are logged.
pub fn refusal(error: &ApiError, method: &Method, id: u64) -> Response<Body> {
    let cause = error.cause_text();
    let cause = cause.as_deref().unwrap_or("-");
    if error.status >= 500 {
        tracing::error!(request = id, %method, code = %error.code, cause, "{}", error.message);
    } else {
        tracing::debug!(request = id, %method, code = %error.code, cause, "{}", error.message);
    }
    answer::error(error)
}
