//! Repositories and images: looking and removing.

use std::sync::Arc;

use axum::body::Body;
use http::Response;
use yadokari_catalog::{CatalogError, ManifestDetails, Permission, Reference, RepoName};

use super::{bad, ok, page, parameter, permission, person, wants};
use crate::api::{Done, Image, Listing, Remove, Repository};
use crate::http::call::Call;
use crate::http::failure::Failure;
use crate::registry::{About, explain};

/// Repositories that the caller may read, of one owner or of all.
pub async fn repositories(call: &Call) -> Result<Response<Body>, Failure> {
    let (last, n) = page(call)?;
    let query = call.query()?;
    let owner = query.get("owner");
    let below = owner.map(|owner| format!("{owner}/"));
    // The owner's own name is a repository too, the first one of all that begin with it.
    let start = match (last, owner) {
        (Some(last), _) => Some(last),
        (None, Some(owner)) => before(owner),
        (None, None) => None,
    };
    let catalog = &call.app.registry.catalog;
    let caller = call.caller.for_catalog();
    let (mut items, mut next, mut start) = (Vec::new(), None, start);
    loop {
        let found = catalog.repositories(&caller, start.as_deref(), n).await;
        let found = found.map_err(|error| explain(About::Repository, error))?;
        let mut passed = false;
        for name in &found.items {
            let wanted = match (owner, &below) {
                (Some(owner), Some(below)) => {
                    let mine = name.as_str() == owner || name.as_str().starts_with(below);
                    passed |= !mine && name.as_str() > below.as_str();
                    mine
                }
                _ => true,
            };
            if wanted && let Some(facts) = facts(call, name).await? {
                items.push(facts);
            }
        }
        start = found.items.last().map(|name| name.as_str().to_owned());
        if !found.more || passed {
            break;
        }
        if items.len() >= n {
            next.clone_from(&start);
            break;
        }
    }
    ok(&Listing { items, next })
}

/// A text that sorts right before all that begin with `name`.
fn before(name: &str) -> Option<String> {
    let mut text = name.to_owned();
    let last = text.pop()?;
    let lower = char::from_u32(u32::from(last).checked_sub(1)?)?;
    text.push(lower);
    text.push('~');
    Some(text)
}

async fn facts(call: &Call, name: &RepoName) -> Result<Option<Repository>, Failure> {
    let may = permission(call, name).await?;
    if may < Permission::Read {
        return Ok(None);
    }
    let catalog = &call.app.registry.catalog;
    let summary = match catalog.repository(name).await {
        Ok(summary) => summary,
        // Gone since it was listed.
        Err(CatalogError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(explain(About::Repository, error).into()),
    };
    let rights = catalog.rights(&name.owner()).await;
    let rights = rights.map_err(|error| explain(About::Repository, error))?;
    let access = rights.repositories.get(name.rest()).unwrap_or(&rights.default);
    Ok(Some(Repository {
        name: name.to_string(),
        tags: summary.tags,
        manifests: summary.manifests,
        untagged: summary.untagged,
        bytes: summary.bytes,
        pushed: (summary.pushed_ms > 0).then_some(summary.pushed_ms / 1000),
        public: access.public,
        permission: shown(may).to_owned(),
    }))
}

fn shown(permission: Permission) -> &'static str {
    match permission {
        Permission::None => "none",
        Permission::Read => "read",
        Permission::Write => "write",
        Permission::Manage => "manage",
    }
}

/// One repository.
pub async fn repository(call: &Call) -> Result<Response<Body>, Failure> {
    let name: RepoName = parameter(call, "name")?;
    wants(call, &name, Permission::Read).await?;
    match facts(call, &name).await? {
        Some(facts) => ok(&facts),
        None => Err(About::Repository.unknown().into()),
    }
}

/// Manifests of a repository.
pub async fn images(call: &Call) -> Result<Response<Body>, Failure> {
    let name: RepoName = parameter(call, "repository")?;
    wants(call, &name, Permission::Read).await?;
    let (last, n) = page(call)?;
    let found = call.app.registry.catalog.manifests(&name, last.as_deref(), n).await;
    let found = found.map_err(|error| explain(About::Repository, error))?;
    let next = found.items.last().filter(|_| found.more).map(|m| m.info.digest.to_string());
    let items = found.items.into_iter().map(|details| image_facts(&name, details)).collect();
    ok(&Listing::<Image> { items, next })
}

/// One manifest, by tag or digest.
pub async fn image(call: &Call) -> Result<Response<Body>, Failure> {
    let name: RepoName = parameter(call, "repository")?;
    let reference: Reference = parameter(call, "reference")?;
    wants(call, &name, Permission::Read).await?;
    let catalog = &call.app.registry.catalog;
    let info = catalog.manifest_info(&name, &reference).await;
    let info = info.map_err(|error| explain(About::Manifest, error))?;
    // Pages are by digest: the one right before it begins the page with it.
    let digest = info.digest.to_string();
    let page = catalog.manifests(&name, digest_before(&digest).as_deref(), 2).await;
    let page = page.map_err(|error| explain(About::Repository, error))?;
    let found = page.items.into_iter().find(|details| details.info.digest == info.digest);
    match found {
        Some(details) => ok(&image_facts(&name, details)),
        None => Err(About::Manifest.unknown().into()),
    }
}

/// The digest right before another one, as a number; `None` before the first.
fn digest_before(digest: &str) -> Option<String> {
    let (algorithm, hex) = digest.split_once(':')?;
    let kept = hex.trim_end_matches('0');
    let mut lowered = kept.to_owned();
    let last = lowered.pop()?.to_digit(16)?.checked_sub(1)?;
    lowered.push(char::from_digit(last, 16)?);
    Some(format!("{algorithm}:{lowered:f<width$}", width = hex.len()))
}

fn image_facts(repository: &RepoName, details: ManifestDetails) -> Image {
    let links = details.links;
    Image {
        repository: repository.to_string(),
        digest: details.info.digest.to_string(),
        tags: details.tags.iter().map(ToString::to_string).collect(),
        media_type: details.info.media_type.to_string(),
        artifact_type: links.artifact_type,
        bytes: details.image_bytes,
        layers: links.layers.len(),
        children: links.children.iter().map(ToString::to_string).collect(),
        subject: links.subject.map(|digest| digest.to_string()),
        created: links.created_ms.map(|ms| ms / 1000),
        pushed: details.info.pushed_ms / 1000,
        untagged_since: details.unkept_since_ms.map(|ms| ms / 1000),
    }
}

/// Removes a tag, or a manifest with all its tags.
pub async fn remove_image(call: Arc<Call>, remove: Remove) -> Result<Response<Body>, Failure> {
    person(&call)?;
    let name: RepoName =
        remove.repository.parse().map_err(|error| bad(format!("`repository`: {error}")))?;
    let reference: Reference =
        remove.reference.parse().map_err(|error| bad(format!("`reference`: {error}")))?;
    wants(&call, &name, Permission::Write).await?;
    let catalog = &call.app.registry.catalog;
    let removed = match &reference {
        Reference::Tag(tag) => {
            let done = catalog.delete_tag(&name, tag).await;
            done.map_err(|error| explain(About::Manifest, error))?;
            call.audit("untag", &name, tag.as_str());
            vec![format!("{name}:{tag}")]
        }
        Reference::Digest(digest) => {
            let tags = catalog.delete_manifest(&name, digest).await;
            let tags = tags.map_err(|error| explain(About::Manifest, error))?;
            call.audit("delete", &name, &digest.to_string());
            let tags = tags.iter().map(|tag| format!("{name}:{tag}"));
            std::iter::once(format!("{name}@{digest}")).chain(tags).collect()
        }
    };
    ok(&Done { removed })
}

/// Removes all that a repository holds.
pub async fn remove_repository(call: Arc<Call>, remove: Remove) -> Result<Response<Body>, Failure> {
    person(&call)?;
    let name: RepoName = remove.name.parse().map_err(|error| bad(format!("`name`: {error}")))?;
    wants(&call, &name, Permission::Write).await?;
    let done = call.app.registry.catalog.delete_repository(&name).await;
    done.map_err(|error| explain(About::Repository, error))?;
    call.audit("delete-repository", &name, "");
    ok(&Done { removed: vec![name.to_string()] })
}

#[cfg(test)]
mod tests {
    use super::{before, digest_before};

    #[test]
    fn the_digest_before_another_is_one_less() {
        assert_eq!(digest_before("sha256:a1").as_deref(), Some("sha256:a0"));
        assert_eq!(digest_before("sha256:a00").as_deref(), Some("sha256:9ff"));
        assert_eq!(digest_before("sha256:10").as_deref(), Some("sha256:0f"));
        assert_eq!(digest_before("sha256:00"), None);
    }

    #[test]
    fn a_list_of_one_owner_begins_right_before_the_owner() {
        let start = before("ada").unwrap();
        for (name, listed) in [("acz", false), ("ac0", false), ("ada", true), ("ada/x", true)] {
            assert_eq!(name > start.as_str(), listed, "{name}");
        }
    }
}
