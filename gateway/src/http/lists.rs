//! Lists over HTTP: repositories, tags, referrers.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use yadokari_catalog::{Digest, RepoName};

use super::answer;
use super::call::Call;
use super::failure::Failure;
use crate::auth::Proof;
use crate::oci::page::{Page, link};
use crate::oci::{media, referrers};
use crate::registry::{About, explain};

/// `_catalog`: what the caller may see.
///
/// # Errors
/// A challenge for a token that was not made for it; a wrong `n`.
pub async fn catalog(call: &Call) -> Result<Response<Body>, Failure> {
    #[derive(Serialize)]
    struct List<'a> {
        repositories: &'a [RepoName],
    }
    if !call.caller.ceiling.allows_catalog() && call.caller.proof != Proof::Nothing {
        return Err(call.challenge_catalog());
    }
    let query = call.query()?;
    let page = Page::of(&query)?;
    let caller = call.caller.for_catalog();
    let found = call.app.registry.catalog.repositories(&caller, page.last.as_deref(), page.n);
    let found = found.await.map_err(|error| explain(About::Repository, error))?;
    let last = found.items.last().map(RepoName::as_str);
    let next = last.filter(|_| found.more && page.n > 0);
    let next = next.map(|last| link("/v2/_catalog", page.n, last, &[]));
    Ok(list(call, &List { repositories: &found.items }, next))
}

/// `tags/list`.
///
/// # Errors
/// When there is no such repository; a wrong `n`.
pub async fn tags(call: &Call, repo: &RepoName) -> Result<Response<Body>, Failure> {
    #[derive(Serialize)]
    struct List<'a> {
        name: &'a RepoName,
        tags: &'a [yadokari_catalog::Tag],
    }
    call.may_read(repo, About::Repository).await?;
    let query = call.query()?;
    let page = Page::of(&query)?;
    let found = call.app.registry.catalog.tags(repo, page.last.as_deref(), page.n).await;
    let found = found.map_err(|error| explain(About::Repository, error))?;
    let last = found.items.last().map(yadokari_catalog::Tag::as_str);
    let next = last.filter(|_| found.more && page.n > 0);
    let next = next.map(|last| link(&format!("/v2/{repo}/tags/list"), page.n, last, &[]));
    Ok(list(call, &List { name: repo, tags: &found.items }, next))
}

/// `referrers/DIGEST`, also of what is not there: an empty list, never 404.
///
/// # Errors
/// A challenge; what the store says.
pub async fn referrers(
    call: &Call,
    repo: &RepoName,
    subject: &Digest,
) -> Result<Response<Body>, Failure> {
    let query = call.query()?;
    let filter = query.get("artifactType");
    let last = query.get("last");
    let found = if call.caller.is_anonymous() || call.can_read(repo).await? {
        call.may_read(repo, About::Repository).await?;
        Some(call.app.registry.referrers(repo, subject, filter, last).await?)
    } else {
        // As if there were none: a repository that is hidden is one that is not there.
        None
    };
    let (items, next) = found.map(|page| (page.items, page.next)).unwrap_or_default();
    let kind = HeaderValue::from_static(media::OCI_INDEX);
    let mut response = answer::full(StatusCode::OK, kind, referrers::index(&items).into());
    let headers = response.headers_mut();
    if filter.is_some() {
        let applied = HeaderValue::from_static("artifactType");
        headers.insert(answer::OCI_FILTERS_APPLIED, applied);
    }
    if let Some(last) = next {
        let path = format!("/v2/{repo}/referrers/{subject}");
        let kept: Vec<(&str, &str)> = filter.map(|f| ("artifactType", f)).into_iter().collect();
        let text = link(&path, items.len(), &last, &kept);
        headers.insert(header::LINK, answer::value(&relocate(call, text)));
    }
    Ok(response)
}

fn list(call: &Call, list: &impl Serialize, next: Option<String>) -> Response<Body> {
    let body = serde_json::to_vec(list).expect("names can always be written");
    let mut response = answer::json(StatusCode::OK, body);
    if let Some(next) = next {
        response.headers_mut().insert(header::LINK, answer::value(&relocate(call, next)));
    }
    response
}

/// A `Link` with the address that the outside knows, if it needs one.
fn relocate(call: &Call, link: String) -> String {
    match link.strip_prefix('<') {
        Some(rest) => format!("<{}", call.location(rest)),
        None => link,
    }
}
