//! Owners: what they share, what they use, whose a name is.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use http::Response;
use yadokari_catalog::{
    Access as Rights, CatalogError, Identity, Owner, OwnerKind, OwnerName, Permission, Quota,
    RepoName,
};

use super::{admin, audit, bad, ok, page, parameter, person, wants, wants_owner};
use crate::api::{Access, Group, Listing, Reassign, SetQuota, Share, Sharing, Usage};
use crate::http::call::Call;
use crate::http::failure::Failure;
use crate::registry::{About, explain};

/// Users and groups that one entry names.
const SHARED_WITH_MAX: usize = 1000;

fn said(error: CatalogError) -> Failure {
    explain(About::Repository, error).into()
}

/// What an owner shares.
pub async fn rights(call: &Call) -> Result<Response<Body>, Failure> {
    let owner: OwnerName = parameter(call, "owner")?;
    wants_owner(call, &owner).await?;
    let rights = call.app.registry.catalog.rights(&owner).await.map_err(said)?;
    ok(&sharing(&owner, &rights))
}

fn sharing(owner: &OwnerName, rights: &yadokari_catalog::Rights) -> Sharing {
    let named = rights.repositories.iter().map(|(rest, rights)| {
        let name = if rest.is_empty() { owner.to_string() } else { format!("{owner}/{rest}") };
        (name, access(rights))
    });
    Sharing {
        owner: owner.to_string(),
        default: access(&rights.default),
        repositories: named.collect(),
    }
}

fn access(rights: &Rights) -> Access {
    let users = |set: &BTreeSet<OwnerName>| set.iter().map(ToString::to_string).collect();
    Access {
        public: rights.public,
        read_users: users(&rights.read_users),
        read_groups: rights.read_groups.clone(),
        write_users: users(&rights.write_users),
        write_groups: rights.write_groups.clone(),
    }
}

/// Changes what an owner shares.
pub async fn share(call: Arc<Call>, share: Share) -> Result<Response<Body>, Failure> {
    let person = person(&call)?;
    let target: RepoName =
        share.target.parse().map_err(|error| bad(format!("`target`: {error}")))?;
    let owner = target.owner();
    let catalog = &call.app.registry.catalog;
    if person.name == owner {
        // Somebody may share before the first push.
        catalog.claim_user(&owner, &person.identity, true).await.map_err(said)?;
    }
    wants(&call, &target, Permission::Manage).await?;
    let rest = target.rest().to_owned();
    let asked = share.clone();
    let change = move |rights: &mut yadokari_catalog::Rights| {
        let entry = if rest.is_empty() {
            &mut rights.default
        } else {
            let usual = rights.default.clone();
            rights.repositories.entry(rest.clone()).or_insert(usual)
        };
        apply(entry, &asked);
        let named = entry.read_users.len()
            + entry.read_groups.len()
            + entry.write_users.len()
            + entry.write_groups.len();
        if named > SHARED_WITH_MAX {
            let limit = SHARED_WITH_MAX as u64;
            return Err(CatalogError::Limit { what: "users and groups to share with", limit });
        }
        Ok(())
    };
    let rights = catalog.change_rights(&owner, change).await.map_err(said)?;
    audit(&call, "share", &serde_json::to_string(&share).unwrap_or_default());
    ok(&sharing(&owner, &rights))
}

fn apply(entry: &mut Rights, share: &Share) {
    if share.private {
        *entry = Rights::default();
    }
    if let Some(public) = share.public {
        entry.public = public;
    }
    for user in share.remove_users.iter().chain(&share.read_users).chain(&share.write_users) {
        entry.read_users.remove(user);
        entry.write_users.remove(user);
    }
    for group in share.remove_groups.iter().chain(&share.read_groups).chain(&share.write_groups) {
        entry.read_groups.remove(group);
        entry.write_groups.remove(group);
    }
    entry.read_users.extend(share.read_users.iter().cloned());
    entry.write_users.extend(share.write_users.iter().cloned());
    entry.read_groups.extend(share.read_groups.iter().cloned());
    entry.write_groups.extend(share.write_groups.iter().cloned());
}

/// What an owner uses.
pub async fn usage(call: &Call) -> Result<Response<Body>, Failure> {
    let owner: OwnerName = parameter(call, "owner")?;
    wants_owner(call, &owner).await?;
    let record = call.app.registry.catalog.owner(&owner).await.map_err(said)?;
    ok(&usage_of(call, &owner, record.as_ref()).await?)
}

async fn usage_of(call: &Call, name: &OwnerName, record: Option<&Owner>) -> Result<Usage, Failure> {
    let usage = call.app.registry.catalog.usage(name).await.map_err(said)?;
    let mut facts = Usage {
        owner: name.to_string(),
        kind: None,
        managers: BTreeSet::new(),
        authority: None,
        uid: None,
        used: usage.used,
        reserved: usage.reserved,
        blobs: usage.blobs,
        limit: usage.limit,
        default_limit: usage.quota == Quota::Default,
    };
    match record.map(|record| &record.kind) {
        None => {}
        Some(OwnerKind::User(identity)) => {
            facts.kind = Some("user".to_owned());
            facts.authority = Some(identity.authority.clone());
            facts.uid = identity.uid;
        }
        Some(OwnerKind::Group { managers }) => {
            facts.kind = Some("group".to_owned());
            facts.managers = managers.iter().map(ToString::to_string).collect();
        }
    }
    Ok(facts)
}

/// All owners, for administrators.
pub async fn owners(call: &Call) -> Result<Response<Body>, Failure> {
    admin(call)?;
    let (last, n) = page(call)?;
    let found = call.app.registry.catalog.owners(last.as_deref(), n).await.map_err(said)?;
    let next = found.items.last().filter(|_| found.more).map(|owner| owner.name.to_string());
    let mut items = Vec::with_capacity(found.items.len());
    for record in &found.items {
        items.push(usage_of(call, &record.name, Some(record)).await?);
    }
    ok(&Listing { items, next })
}

/// Sets a quota.
pub async fn set_quota(call: Arc<Call>, set: SetQuota) -> Result<Response<Body>, Failure> {
    admin(&call)?;
    let quota = match (set.bytes, set.unlimited) {
        (Some(_), true) => return Err(bad("either `bytes` or `unlimited`".to_owned())),
        (Some(bytes), false) => Quota::Bytes(bytes),
        (None, true) => Quota::Unlimited,
        (None, false) => Quota::Default,
    };
    let catalog = &call.app.registry.catalog;
    catalog.set_quota(&set.owner, quota).await.map_err(said)?;
    audit(&call, "quota", &serde_json::to_string(&set).unwrap_or_default());
    let record = catalog.owner(&set.owner).await.map_err(said)?;
    ok(&usage_of(&call, &set.owner, record.as_ref()).await?)
}

/// Gives a name with all that it owns to another person.
pub async fn reassign(call: Arc<Call>, to: Reassign) -> Result<Response<Body>, Failure> {
    admin(&call)?;
    let identity =
        Identity { authority: to.authority.clone(), uid: to.uid, login: to.login.clone() };
    let record = call.app.registry.catalog.reassign(&to.owner, &identity).await.map_err(said)?;
    audit(&call, "reassign", &serde_json::to_string(&to).unwrap_or_default());
    ok(&usage_of(&call, &to.owner, Some(&record)).await?)
}

/// Makes a group, or changes who manages it.
pub async fn group(call: Arc<Call>, group: Group) -> Result<Response<Body>, Failure> {
    admin(&call)?;
    let catalog = &call.app.registry.catalog;
    let managers = group.managers.clone();
    let record = if group.change {
        catalog.set_managers(&group.name, managers).await
    } else {
        catalog.create_group(&group.name, managers).await
    };
    let record = record.map_err(said)?;
    audit(&call, "group", &serde_json::to_string(&group).unwrap_or_default());
    ok(&usage_of(&call, &group.name, Some(&record)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_named_again_changes_sides_and_private_takes_everything_back() {
        let bob: OwnerName = "bob".parse().unwrap();
        let mut entry = Rights::default();
        let read = Share { read_users: vec![bob.clone()], public: Some(true), ..Share::default() };
        apply(&mut entry, &read);
        assert!(entry.public && entry.read_users.contains(&bob));
        let write = Share { write_users: vec![bob.clone()], ..Share::default() };
        apply(&mut entry, &write);
        assert!(entry.read_users.is_empty() && entry.write_users.contains(&bob) && entry.public);
        let remove = Share { remove_users: vec![bob], ..Share::default() };
        apply(&mut entry, &remove);
        assert!(entry.write_users.is_empty() && entry.public);
        apply(&mut entry, &Share { private: true, ..Share::default() });
        assert_eq!(entry, Rights::default());
    }
}
