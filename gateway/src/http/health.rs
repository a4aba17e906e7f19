//! `/healthz`: the process runs. `/readyz`: it can serve, the store answers, it is not ending.
//! `/metrics`: figures for Prometheus.
//!
//! Figures tell how much is used, so they are for whoever sits on this machine and asks directly,
//! or for the listener made for them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::answer;
use super::app::App;
use super::request::Connection;
use super::server::Role;

/// A store that takes longer is not ready.
const PROBE_TIME_MAX: Duration = Duration::from_secs(5);
/// Headers that proxies add: whoever asks through one is somewhere else.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// Answers, if the path is one of these.
pub async fn answer(
    app: &Arc<App>,
    connection: &Connection,
    request: &Request<Incoming>,
) -> Option<Response<Body>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    match request.uri().path() {
        "/healthz" | "/livez" => Some(text(StatusCode::OK, "ok\n")),
        "/readyz" => Some(ready(app).await),
        "/metrics" => Some(metrics(app, connection, request)),
        _ => None,
    }
}

async fn ready(app: &Arc<App>) -> Response<Body> {
    if app.ending.is_told() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "ending\n");
    }
    match tokio::time::timeout(PROBE_TIME_MAX, app.registry.probe()).await {
        Ok(Ok(())) => text(StatusCode::OK, "ready\n"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready: the store does not answer as it should");
            text(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n")
        }
        Err(_) => {
            tracing::warn!("not ready: the store does not answer in time");
            text(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n")
        }
    }
}

fn metrics(app: &App, connection: &Connection, request: &Request<Incoming>) -> Response<Body> {
    let direct = FORWARDED.iter().all(|name| !request.headers().contains_key(*name));
    let here = connection.facts.peer.ip().to_canonical().is_loopback() && direct;
    if connection.role != Role::Metrics && !here {
        return text(StatusCode::NOT_FOUND, "not found\n");
    }
    app.metrics.measure(app.budget.used());
    match app.metrics.text() {
        Ok(body) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            answer::full(StatusCode::OK, HeaderValue::from_static(kind), body.into())
        }
        Err(_) => answer::empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut response = answer::full(status, kind, body.into());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
