//! Uploads over HTTP: in one request, in two, in chunks, streamed, resumed, mounted, cancelled.
//!
//! A session lies in the store: any instance goes on where another stopped. What arrived before a
//! connection broke is kept, and the client resumes behind it. A blob that exists elsewhere ends
//! no upload early: nobody learns of it that way.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use yadokari_catalog::{
    Algorithm, CatalogError, Digest, INLINE_BYTES_MAX, NewUpload, RepoName, Upload, UploadId,
};

use super::call::Call;
use super::failure::Failure;
use super::source::Source;
use super::v2::{Rest, whole};
use super::{answer, request};
use crate::oci::range::{self, received};
use crate::oci::{ApiError, Code, route};
use crate::registry::{About, explain};

/// Of one upload: one part on its way to the store while the next comes in.
const PARTS_IN_FLIGHT: usize = 1;

/// POST: mounts, takes a whole blob, or begins a session.
///
/// # Errors
/// What is wrong with it; over quota.
pub async fn post(
    call: Arc<Call>,
    repo: RepoName,
    rest: &mut Rest,
) -> Result<Response<Body>, Failure> {
    let query = call.query()?;
    if let Some(text) = query.get("mount") {
        let digest = route::digest(text)?;
        let from = query.get("from").map(str::to_owned);
        if let Some(response) = mount(&call, &repo, digest, from).await? {
            return Ok(response);
        }
    } else if let Some(text) = query.get("digest") {
        let digest = route::digest(text)?;
        let Some(body) = rest.take() else { return Err(missing_digest().into()) };
        return whole(monolithic(Arc::clone(&call), repo, digest, body)).await;
    }
    let algorithm = query.get("digest-algorithm").map(|name| {
        Algorithm::from_name(name).ok_or_else(|| {
            ApiError::with(Code::DigestInvalid, "digest algorithms are sha256 and sha512")
        })
    });
    let algorithm = algorithm.transpose()?;
    let begin = {
        let call = Arc::clone(&call);
        async move {
            let new = NewUpload { who: call.caller.label(), algorithm, size: None };
            call.app.registry.catalog.begin_upload(&repo, new).await.map_err(failed)
        }
    };
    let upload = whole(begin).await?;
    Ok(session(&call, StatusCode::ACCEPTED, &upload))
}

/// Links a blob of another repository, if the caller may read one that has it; `None` otherwise.
async fn mount(
    call: &Arc<Call>,
    repo: &RepoName,
    digest: Digest,
    from: Option<String>,
) -> Result<Option<Response<Body>>, Failure> {
    let catalog = &call.app.registry.catalog;
    let from = match from {
        // A name that is none is a repository that is not there.
        Some(name) => name.parse::<RepoName>().ok(),
        None => catalog.find_blob(&call.caller.for_catalog(), &digest).await.map_err(failed)?,
    };
    let Some(from) = from else { return Ok(None) };
    if from != *repo && !call.may_mount_from(&from).await? {
        return Ok(None);
    }
    let change = {
        let (call, repo) = (Arc::clone(call), repo.clone());
        async move {
            match call.app.registry.catalog.mount(&repo, &from, &digest).await {
                Ok(_) => {
                    call.audit("mount", &repo, &format!("{digest} from {from}"));
                    Ok(Some(stored(&call, &repo, &digest)))
                }
                Err(CatalogError::NotFound { .. }) => Ok(None),
                Err(error) => Err(failed(error)),
            }
        }
    };
    whole(change).await
}

/// POST with digest and content.
async fn monolithic(
    call: Arc<Call>,
    repo: RepoName,
    digest: Digest,
    body: Incoming,
) -> Result<Response<Body>, Failure> {
    let length = request::content_length(&call.parts.headers);
    let mut source = Source::new(&call, body, None)?;
    let catalog = &call.app.registry.catalog;
    if length.is_some_and(|length| length <= INLINE_BYTES_MAX as u64) {
        let bytes = source.small().await?;
        catalog.put_blob(&repo, &digest, bytes).await.map_err(failed)?;
    } else {
        let algorithm = Some(digest.algorithm());
        let new = NewUpload { who: call.caller.label(), algorithm, size: length };
        let upload = catalog.begin_upload(&repo, new).await.map_err(failed)?;
        let id = upload.id().clone();
        let done = async {
            let writer = upload.write_at(0, length, PARTS_IN_FLIGHT).await.map_err(failed)?;
            let writer = source.pour(writer).await?.whole()?;
            writer.finish(&digest).await.map_err(failed)
        };
        if let Err(error) = done.await {
            // Nobody knows the session, so nobody can go on with it.
            if let Ok(upload) = catalog.upload(&repo, &id).await {
                let _expires_anyway = upload.cancel().await;
            }
            return Err(error);
        }
    }
    call.audit("upload", &repo, &digest.to_string());
    Ok(stored(&call, &repo, &digest))
}

/// GET: where a session stands.
///
/// # Errors
/// When there is no such session.
pub async fn status(
    call: &Call,
    repo: &RepoName,
    session_id: &str,
) -> Result<Response<Body>, Failure> {
    let upload = find(call, repo, session_id).await?;
    let mut response = session(call, StatusCode::NO_CONTENT, &upload);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    Ok(response)
}

/// PATCH: more of the content.
///
/// # Errors
/// 416 with where it goes on; what became of the body.
pub async fn patch(
    call: Arc<Call>,
    repo: RepoName,
    session_id: String,
    rest: &mut Rest,
) -> Result<Response<Body>, Failure> {
    let upload = find(&call, &repo, &session_id).await?;
    let chunk = chunk(&call, &upload)?;
    let Some(body) = rest.take() else { return Ok(session(&call, StatusCode::ACCEPTED, &upload)) };
    whole(async move {
        let mut source = Source::new(&call, body, chunk)?;
        let id = upload.id().clone();
        let (offset, expected) = (upload.offset(), source.expected(&call));
        let writer = match upload.write_at(offset, expected, PARTS_IN_FLIGHT).await {
            Ok(writer) => writer,
            Err(error) => return Err(source.refuse(at(&call, &repo, &id, error).await)),
        };
        let poured = match source.pour(writer).await {
            Ok(poured) => poured,
            Err(Failure::Api(error)) => return Err(relocate(&call, &repo, &id, *error).into()),
            Err(other) => return Err(other),
        };
        // Kept although the body broke off: the client goes on behind it.
        let (writer, broken) = poured.parts();
        let upload = match writer.end().await {
            Ok(upload) => upload,
            Err(error) => return Err(at(&call, &repo, &id, error).await),
        };
        broken.map_or(Ok(()), Err)?;
        Ok(session(&call, StatusCode::ACCEPTED, &upload))
    })
    .await
}

/// PUT: the rest of the content, if any, and the end.
///
/// # Errors
/// `DIGEST_INVALID`, 416, over quota, what became of the body.
pub async fn put(
    call: Arc<Call>,
    repo: RepoName,
    session_id: String,
    rest: &mut Rest,
) -> Result<Response<Body>, Failure> {
    let digest = {
        let query = call.query()?;
        route::digest(query.get("digest").ok_or_else(missing_digest)?)?
    };
    let upload = find(&call, &repo, &session_id).await?;
    let chunk = chunk(&call, &upload)?;
    let body = rest.take();
    whole(async move {
        let id = upload.id().clone();
        let empty = body.as_ref().is_none_or(http_body::Body::is_end_stream);
        let finished = if empty {
            upload.finish(&digest).await
        } else if let Some(body) = body {
            let mut source = Source::new(&call, body, chunk)?;
            let (offset, expected) = (upload.offset(), source.expected(&call));
            let writer = match upload.write_at(offset, expected, PARTS_IN_FLIGHT).await {
                Ok(writer) => writer,
                Err(error) => return Err(source.refuse(at(&call, &repo, &id, error).await)),
            };
            source.pour(writer).await?.whole()?.finish(&digest).await
        } else {
            upload.finish(&digest).await
        };
        match finished {
            Ok(_) => {
                call.audit("upload", &repo, &digest.to_string());
                Ok(stored(&call, &repo, &digest))
            }
            Err(error) => Err(at(&call, &repo, &id, error).await),
        }
    })
    .await
}

/// DELETE: ends a session without a blob.
///
/// # Errors
/// When there is no such session.
pub async fn cancel(
    call: Arc<Call>,
    repo: RepoName,
    session_id: String,
) -> Result<Response<Body>, Failure> {
    let upload = find(&call, &repo, &session_id).await?;
    upload.cancel().await.map_err(failed)?;
    let mut response = answer::empty(StatusCode::NO_CONTENT);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    Ok(response)
}

async fn find(call: &Call, repo: &RepoName, session_id: &str) -> Result<Upload, Failure> {
    let id: UploadId = session_id.parse().map_err(|_| About::Upload.unknown())?;
    call.app.registry.catalog.upload(repo, &id).await.map_err(failed)
}

/// What a chunk says of itself must fit where the session stands.
fn chunk(call: &Call, upload: &Upload) -> Result<Option<range::Chunk>, Failure> {
    let Some(header) = call.header(&header::CONTENT_RANGE) else { return Ok(None) };
    let chunk = range::chunk(header).map_err(|why| ApiError::with(Code::BlobUploadInvalid, why))?;
    if chunk.start != upload.offset() {
        let message = format!("the upload goes on at offset {}", upload.offset());
        let mut error = ApiError::with(Code::BlobUploadInvalid, message).status(416);
        error.upload = Some((place(call, upload.repo(), upload.id()), upload.offset()));
        return Err(error.into());
    }
    let length = request::content_length(&call.parts.headers);
    if length.is_some_and(|length| length != chunk.len) {
        return Err(ApiError::new(Code::SizeInvalid).into());
    }
    Ok(Some(chunk))
}

fn failed(error: CatalogError) -> Failure {
    explain(About::Upload, error).into()
}

/// An error of a session, with where it stands now for whoever was overtaken.
async fn at(call: &Call, repo: &RepoName, id: &UploadId, error: CatalogError) -> Failure {
    let overtaken = matches!(error, CatalogError::WrongOffset { .. });
    let mut error = explain(About::Upload, error);
    if overtaken && let Ok(upload) = call.app.registry.catalog.upload(repo, id).await {
        error.upload = Some((place(call, repo, id), upload.offset()));
    }
    error.into()
}

/// The same for an error that was explained already.
fn relocate(call: &Call, repo: &RepoName, id: &UploadId, mut error: ApiError) -> ApiError {
    if error.status == 416 && error.upload.is_none() {
        error.upload = Some((place(call, repo, id), 0));
    }
    error
}

fn missing_digest() -> ApiError {
    ApiError::with(Code::DigestInvalid, "the parameter `digest` is missing")
}

fn place(call: &Call, repo: &RepoName, id: &UploadId) -> String {
    call.location(&format!("/v2/{repo}/blobs/uploads/{}", id.as_str()))
}

/// Where a session stands.
fn session(call: &Call, status: StatusCode, upload: &Upload) -> Response<Body> {
    let mut response = answer::empty(status);
    let headers = response.headers_mut();
    let location = place(call, upload.repo(), upload.id());
    headers.insert(header::LOCATION, answer::value(&location));
    headers.insert(header::RANGE, answer::value(&received(upload.offset())));
    headers.insert(answer::UPLOAD_UUID, answer::value(upload.id().as_str()));
    response
}

/// A blob that is there now.
fn stored(call: &Call, repo: &RepoName, digest: &Digest) -> Response<Body> {
    let mut response = answer::empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    let location = call.location(&format!("/v2/{repo}/blobs/{digest}"));
    headers.insert(header::LOCATION, answer::value(&location));
    let digest = HeaderValue::from_str(&digest.to_string());
    if let Ok(digest) = digest {
        headers.insert(answer::DOCKER_CONTENT_DIGEST, digest);
    }
    response
}
