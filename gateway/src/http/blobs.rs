//! Blobs over HTTP: whole, in part, asked about, deleted.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use yadokari_catalog::{BlobReader, CatalogError, Digest, ReadOptions, RepoName};

use super::answer;
use super::budget::{Budget, PIECE_BYTES_MIN, Share};
use super::call::Call;
use super::failure::Failure;
use crate::auth::Action;
use crate::oci::conditional::{etag, none_match_hits, range_counts};
use crate::oci::range::{Asked, asked};
use crate::oci::{ApiError, Code};
use crate::registry::{About, explain};

/// Larger pieces make stores no faster.
const PIECE_BYTES_MAX: usize = 512 << 10;
/// One piece is on its way out while so many are being read.
const AHEAD: usize = 1;
/// What a digest names never changes; whether one may read it can, so no cache may share it.
const FOR_EVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000");

/// GET and HEAD.
///
/// # Errors
/// When it is not there, or must look so; 416.
pub async fn get(call: &Call, repo: &RepoName, digest: &Digest) -> Result<Response<Body>, Failure> {
    call.may_read(repo, About::Blob).await?;
    let catalog = &call.app.registry.catalog;
    let failed = |error| Failure::from(explain(About::Blob, error));
    let info = catalog.blob(repo, digest).await.map_err(failed)?;
    let name = digest.to_string();
    if none_match_hits(call.header(&header::IF_NONE_MATCH), &name) {
        let mut response = answer::empty(StatusCode::NOT_MODIFIED);
        response.headers_mut().remove(header::CONTENT_LENGTH);
        identify(response.headers_mut(), &name);
        return Ok(response);
    }
    let head = call.parts.method == Method::HEAD;
    let wanted = call.header(&header::RANGE).filter(|_| {
        // A range of a HEAD has no meaning (RFC 9110, 14.2).
        !head && range_counts(call.header(&header::IF_RANGE), &name)
    });
    let (status, range) = match asked(wanted, info.size) {
        Asked::All => (StatusCode::OK, 0..info.size),
        Asked::Part { start, len } => (StatusCode::PARTIAL_CONTENT, start..start + len),
        Asked::Nothing => return Ok(unsatisfiable(info.size)),
    };
    let len = range.end - range.start;
    let mut response = if head || len == 0 {
        Response::new(Body::empty())
    } else {
        let (options, share) = pieces(&call.app.budget, len);
        let reader = catalog.read_blob(repo, digest, Some(range.clone()), options).await;
        let reader = reader.map_err(failed)?;
        Response::new(Body::new(Outflow { reader, left: len, id: call.id, _share: share }))
    };
    *response.status_mut() = status;
    let headers = response.headers_mut();
    identify(headers, &name);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{}", range.start, range.end - 1, info.size);
        headers.insert(header::CONTENT_RANGE, answer::value(&text));
    }
    Ok(response)
}

fn identify(headers: &mut HeaderMap, digest: &str) {
    headers.insert(answer::DOCKER_CONTENT_DIGEST, answer::value(digest));
    headers.insert(header::ETAG, answer::value(&etag(digest)));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, FOR_EVER);
}

fn unsatisfiable(size: u64) -> Response<Body> {
    let error = ApiError::with(Code::SizeInvalid, "the range is not inside the blob").status(416);
    let mut response = answer::error(&error);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_RANGE, answer::value(&format!("bytes */{size}")));
    response
}

/// How large the pieces of a transfer are, with the budget that they take for as long as it runs.
fn pieces(budget: &Budget, len: u64) -> (ReadOptions, Option<Share>) {
    let whole = usize::try_from(len).unwrap_or(usize::MAX);
    let piece = budget.piece(PIECE_BYTES_MAX.min(whole));
    // In hand, on the wire, and read ahead.
    let held = piece * (2 + AHEAD);
    if piece > PIECE_BYTES_MIN
        && let Some(share) = budget.try_take(held)
    {
        let piece_bytes = (share.bytes() / (2 + AHEAD)).min(piece);
        return (ReadOptions { piece_bytes, ahead: AHEAD }, Some(share));
    }
    (ReadOptions { piece_bytes: PIECE_BYTES_MIN, ahead: AHEAD }, None)
}

/// A blob on its way out. Its length is announced, so anything that goes wrong breaks the
/// connection: the client can tell, and resume.
struct Outflow {
    reader: BlobReader,
    left: u64,
    id: u64,
    _share: Option<Share>,
}

impl HttpBody for Outflow {
    type Data = Bytes;
    type Error = CatalogError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CatalogError>>> {
        use futures::Stream;
        let polled = Pin::new(&mut self.reader).poll_next(context);
        Poll::Ready(match std::task::ready!(polled) {
            None => None,
            Some(Ok(bytes)) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                Some(Ok(Frame::data(bytes)))
            }
            Some(Err(error)) => {
                let source = ApiError::new(Code::Unknown).because(error.to_string());
                let cause = source.cause_text().unwrap_or_default();
                tracing::error!(request = self.id, cause, "a blob could not be read to its end");
                Some(Err(error))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// DELETE.
///
/// # Errors
/// When it is not there, or a manifest uses it.
pub async fn delete(
    call: Arc<Call>,
    repo: RepoName,
    digest: Digest,
) -> Result<Response<Body>, Failure> {
    call.may_change(&repo, Action::Delete).await?;
    let deleted = call.app.registry.catalog.delete_blob(&repo, &digest).await;
    deleted.map_err(|error| explain(About::Blob, error))?;
    call.audit("delete-blob", &repo, &digest.to_string());
    Ok(answer::empty(StatusCode::ACCEPTED))
}
