//! Manifests over HTTP.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use yadokari_catalog::{ManifestInfo, Reference as Ref, RepoName, Tag};

use super::call::Call;
use super::failure::Failure;
use super::intake::{BodyError, Intake};
use super::v2::Rest;
use super::{answer, request};
use crate::auth::Action;
use crate::oci::conditional::{Expected, etag, none_match_hits};
use crate::oci::{ApiError, Code, Reference};
use crate::registry::{About, explain};

/// Tags that one push may set.
const TAGS_MAX: usize = 100;

/// GET and HEAD.
///
/// # Errors
/// When it is not there, or must look so.
pub async fn get(
    call: &Call,
    repo: &RepoName,
    reference: &Reference,
) -> Result<Response<Body>, Failure> {
    call.may_read(repo, About::Manifest).await?;
    let reference = match reference {
        Reference::Tag(tag) => Ref::Tag(tag.clone()),
        Reference::Digest(digest) => Ref::Digest(*digest),
        Reference::Neither(_) => return Err(About::Manifest.unknown().into()),
    };
    let catalog = &call.app.registry.catalog;
    let failed = |error| Failure::from(explain(About::Manifest, error));
    let condition = call.header(&header::IF_NONE_MATCH);
    if call.parts.method == Method::HEAD || condition.is_some() {
        let info = catalog.manifest_info(repo, &reference).await.map_err(failed)?;
        let digest = info.digest.to_string();
        if none_match_hits(condition, &digest) {
            let mut response = answer::empty(StatusCode::NOT_MODIFIED);
            response.headers_mut().remove(header::CONTENT_LENGTH);
            identify(response.headers_mut(), &digest);
            return Ok(response);
        }
        if call.parts.method == Method::HEAD {
            let mut response = Response::new(Body::empty());
            describe(response.headers_mut(), &info, &digest);
            return Ok(response);
        }
    }
    let manifest = catalog.manifest(repo, &reference).await.map_err(failed)?;
    let digest = manifest.info.digest.to_string();
    let mut response = Response::new(Body::from(manifest.bytes));
    describe(response.headers_mut(), &manifest.info, &digest);
    Ok(response)
}

fn describe(headers: &mut HeaderMap, info: &ManifestInfo, digest: &str) {
    headers.insert(header::CONTENT_TYPE, answer::value(&info.media_type));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(info.size));
    identify(headers, digest);
}

fn identify(headers: &mut HeaderMap, digest: &str) {
    headers.insert(answer::DOCKER_CONTENT_DIGEST, answer::value(digest));
    headers.insert(header::ETAG, answer::value(&etag(digest)));
}

/// Reads the body of a push, which is small or refused.
///
/// # Errors
/// 413, or what became of the body.
pub async fn body(call: &Call, rest: &mut Rest) -> Result<Bytes, Failure> {
    let max = yadokari_catalog::MANIFEST_BYTES_MAX as u64;
    let too_long = || {
        let message = format!("a manifest may have {max} bytes");
        Failure::from(ApiError::with(Code::SizeInvalid, message).status(413))
    };
    if request::content_length(&call.parts.headers).is_some_and(|length| length > max) {
        return Err(too_long());
    }
    let Some(body) = rest.take() else { return Ok(Bytes::new()) };
    let app = &call.app;
    let mut intake = Intake::new(body, app.budget.clone(), &app.config.limits, max);
    let read = intake.whole().await;
    app.metrics.received.inc_by(intake.received());
    read.map_err(|error| {
        *rest = Some(intake.into_body());
        match error {
            BodyError::TooLong(_) => too_long(),
            error => ApiError::with(Code::ManifestInvalid, error.to_string()).into(),
        }
    })
}

/// PUT. Rights were checked before the body was read.
///
/// # Errors
/// What is wrong with it.
pub async fn put(
    call: Arc<Call>,
    repo: RepoName,
    reference: Reference,
    bytes: Bytes,
) -> Result<Response<Body>, Failure> {
    let tags = tags(&call)?;
    let expected = Expected::of(
        request::joined(&call.parts.headers, &header::IF_MATCH).as_deref(),
        request::joined(&call.parts.headers, &header::IF_NONE_MATCH).as_deref(),
    );
    let registry = &call.app.registry;
    registry.expect(&repo, &reference, &expected).await?;
    let content_type = call.header(&header::CONTENT_TYPE).map(str::to_owned);
    let pushed = registry.push_manifest(&repo, &reference, content_type, bytes, tags.clone());
    let pushed = pushed.await?;
    let digest = pushed.digest.to_string();
    let named = match &reference {
        Reference::Tag(tag) => format!("{tag} {digest}"),
        _ if tags.is_empty() => digest.clone(),
        _ => {
            let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
            format!("{} {digest}", tags.join(" "))
        }
    };
    call.audit("push", &repo, &named);
    let mut response = answer::empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    let location = call.location(&format!("/v2/{repo}/manifests/{digest}"));
    headers.insert(header::LOCATION, answer::value(&location));
    identify(headers, &digest);
    if let Some(subject) = pushed.subject {
        headers.insert(answer::OCI_SUBJECT, answer::value(&subject.to_string()));
    }
    for tag in &tags {
        headers.append(answer::OCI_TAG, answer::value(tag.as_str()));
    }
    Ok(response)
}

/// The tags that a push by digest names beside.
fn tags(call: &Call) -> Result<Vec<Tag>, Failure> {
    let query = call.query()?;
    let mut tags: Vec<Tag> = Vec::new();
    for text in query.all("tag") {
        let tag: Tag = text.parse().map_err(|_| {
            let shown: String = text.chars().take(80).collect();
            ApiError::with(Code::ManifestInvalid, format!("`{shown}` is not a valid tag"))
        })?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    if tags.len() > TAGS_MAX {
        let message = format!("at most {TAGS_MAX} tags can be pushed at once");
        return Err(ApiError::with(Code::Unsupported, message).status(414).into());
    }
    Ok(tags)
}

/// DELETE, of a tag or of the manifest.
///
/// # Errors
/// When it is not there, or in use.
pub async fn delete(
    call: Arc<Call>,
    repo: RepoName,
    reference: Reference,
) -> Result<Response<Body>, Failure> {
    call.may_change(&repo, Action::Delete).await?;
    call.app.registry.delete_manifest(&repo, &reference).await?;
    match &reference {
        Reference::Tag(tag) => call.audit("untag", &repo, tag.as_str()),
        Reference::Digest(digest) => call.audit("delete", &repo, &digest.to_string()),
        Reference::Neither(_) => {}
    }
    Ok(answer::empty(StatusCode::ACCEPTED))
}
