//! `/v2/…`: from path and method to one operation of the registry, and back to an answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::FutureExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::admission::Whose;
use super::app::App;
use super::call::Call;
use super::failure::Failure;
use super::metrics::Operation;
use super::record::Note;
use super::request::Connection;
use super::{answer, blobs, intake, lists, manifests, uploads};
use crate::auth::{Action, Proof, Scope};
use crate::oci::{ApiError, Code, Route, route};

/// Who is told to come again should not come at once.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What remains of a body that a handler did not want.
pub type Rest = Option<Incoming>;

/// Answers one request below `/v2`.
pub async fn answer(
    app: &Arc<App>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
    id: u64,
) -> (Response<Body>, Note) {
    let (parts, body) = request.into_parts();
    let method = parts.method.clone();
    // A client that waits to be told to go on sends nothing when it is not.
    let waits = parts.headers.contains_key(header::EXPECT);
    let (mut note, mut rest) = (Note::default(), Some(body));
    let answered = operate(app, connection, parts, id, &mut rest, &mut note).await;
    let mut response = answered.unwrap_or_else(|failure| failure.answer(&method, id));
    if let Some(body) = rest
        && !waits
    {
        intake::drain(body, &app.config.limits);
    }
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert(answer::API_VERSION, version);
    (response, note)
}

async fn operate(
    app: &Arc<App>,
    connection: &Arc<Connection>,
    parts: http::request::Parts,
    id: u64,
    rest: &mut Rest,
    note: &mut Note,
) -> Result<Response<Body>, Failure> {
    let path = parts.uri.path();
    let path = path.strip_prefix("/v2").unwrap_or(path);
    let route = route::parse(path.strip_prefix('/').unwrap_or(path))?;
    note.operation = operation(&parts.method, &route);
    let needs = needs(&parts.method, &route);
    let call = Call::identify(app, connection, parts, id, &needs).await.map_err(|(f, _)| f)?;
    note.know(&call.caller);
    let whose = match call.caller.user() {
        Some(user) => Whose::Name(user.name.as_str().into()),
        None => Whose::Address(connection.client(&call.parts.headers)),
    };
    note.admitted = Some(app.admission.admit(whose).ok_or_else(|| {
        app.metrics.throttled.inc();
        ApiError::new(Code::TooManyRequests).retry_after(RETRY_AFTER)
    })?);
    let bounded = !matches!(route, Route::Blob(..) | Route::Uploads(_) | Route::Upload(..));
    let serving = serve(Arc::new(call), route, rest);
    if !bounded {
        // Bodies have limits of their own.
        return serving.await;
    }
    let limit = app.config.limits.request_time;
    tokio::time::timeout(limit, serving).await.unwrap_or_else(|_| {
        let error = ApiError::new(Code::Unavailable).retry_after(RETRY_AFTER);
        Err(error.because("it took too long").into())
    })
}

async fn serve(call: Arc<Call>, route: Route, rest: &mut Rest) -> Result<Response<Body>, Failure> {
    let method = call.parts.method.clone();
    let read = matches!(method, Method::GET | Method::HEAD);
    match route {
        Route::Base if read => base(&call),
        Route::Extensions if read => Ok(answer::json(StatusCode::OK, r#"{"extensions":[]}"#)),
        Route::Catalog if read => lists::catalog(&call).await,
        Route::Tags(repo) if read => lists::tags(&call, &repo).await,
        Route::Referrers(repo, digest) if read => lists::referrers(&call, &repo, &digest).await,
        Route::Base
        | Route::Extensions
        | Route::Catalog
        | Route::Tags(_)
        | Route::Referrers(..) => Err(Failure::Method("GET, HEAD")),
        Route::Manifest(repo, reference) => match method {
            Method::GET | Method::HEAD => manifests::get(&call, &repo, &reference).await,
            Method::PUT => {
                call.may_change(&repo, Action::Push).await?;
                let body = manifests::body(&call, rest).await?;
                whole(manifests::put(call, repo, reference, body)).await
            }
            Method::DELETE => whole(manifests::delete(call, repo, reference)).await,
            _ => Err(Failure::Method("GET, HEAD, PUT, DELETE")),
        },
        Route::Blob(repo, digest) => match method {
            Method::GET | Method::HEAD => blobs::get(&call, &repo, &digest).await,
            Method::DELETE => whole(blobs::delete(call, repo, digest)).await,
            _ => Err(Failure::Method("GET, HEAD, DELETE")),
        },
        Route::Uploads(repo) => match method {
            Method::POST => {
                call.may_change(&repo, Action::Push).await?;
                uploads::post(call, repo, rest).await
            }
            _ => Err(Failure::Method("POST")),
        },
        Route::Upload(repo, session) => {
            call.may_change(&repo, Action::Push).await?;
            match method {
                Method::GET | Method::HEAD => uploads::status(&call, &repo, &session).await,
                Method::PATCH => uploads::patch(call, repo, session, rest).await,
                Method::PUT => uploads::put(call, repo, session, rest).await,
                Method::DELETE => whole(uploads::cancel(call, repo, session)).await,
                _ => Err(Failure::Method("GET, PATCH, PUT, DELETE")),
            }
        }
    }
}

/// Runs a change to its end even if the client goes away meanwhile.
pub async fn whole<T: Send + 'static>(
    change: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::spawn(std::panic::AssertUnwindSafe(change).catch_unwind()).await {
        Ok(Ok(done)) => done,
        Ok(Err(_panic)) => Err(ApiError::new(Code::Unknown).because("it panicked").into()),
        Err(ended) => Err(ApiError::new(Code::Unavailable).because(ended).into()),
    }
}

/// `/v2/` says whether a client must log in: whoever comes with nothing is told how.
fn base(call: &Call) -> Result<Response<Body>, Failure> {
    // Local callers too: so clients get a token and behave as with any registry.
    if matches!(call.caller.proof, Proof::Nothing | Proof::Kernel) {
        return Err(call.challenge_anybody());
    }
    Ok(answer::json(StatusCode::OK, "{}"))
}

/// What the request needs, for the challenge to whoever comes with too little.
fn needs(method: &Method, route: &Route) -> Vec<Scope> {
    let repo = match route {
        Route::Base | Route::Extensions => return Vec::new(),
        Route::Catalog => return vec![Scope::catalog()],
        Route::Tags(repo)
        | Route::Manifest(repo, _)
        | Route::Blob(repo, _)
        | Route::Uploads(repo)
        | Route::Upload(repo, _)
        | Route::Referrers(repo, _) => repo.clone(),
    };
    let upload = matches!(route, Route::Uploads(_) | Route::Upload(..));
    vec![match *method {
        Method::GET | Method::HEAD if !upload => Scope::repository(repo, [Action::Pull]),
        Method::DELETE if !upload => Scope::repository(repo, [Action::Delete]),
        _ => Scope::repository(repo, [Action::Pull, Action::Push]),
    }]
}

fn operation(method: &Method, route: &Route) -> Operation {
    let delete = *method == Method::DELETE;
    match route {
        Route::Base | Route::Extensions => Operation::Base,
        Route::Catalog => Operation::Catalog,
        Route::Tags(_) => Operation::Tags,
        Route::Referrers(..) => Operation::Referrers,
        Route::Manifest(..) if delete => Operation::ManifestDelete,
        Route::Manifest(..) if *method == Method::PUT => Operation::ManifestPut,
        Route::Manifest(..) => Operation::ManifestGet,
        Route::Blob(..) if delete => Operation::BlobDelete,
        Route::Blob(..) => Operation::BlobGet,
        Route::Uploads(_) => Operation::UploadStart,
        Route::Upload(..) if delete => Operation::UploadCancel,
        Route::Upload(..) => match *method {
            Method::PATCH => Operation::UploadPart,
            Method::PUT => Operation::UploadEnd,
            _ => Operation::UploadStatus,
        },
    }
}
