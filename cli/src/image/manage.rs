//! Commands that change: rm, share, quota, chown, group.

use std::collections::BTreeMap;

use hyper::Method;
use yadokari_catalog::OwnerName;
use yadokari_gateway::api::{
    Access, Done, Group, Reassign, Remove, SetQuota, Share, Sharing, Usage,
};

use super::client::Client;
use super::list::{or_me, split};
use crate::args::{GroupArgs, GroupCommand, NewQuota, Output, ShareArgs};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::size::{show_bytes, show_count};

/// Removes images or repositories.
pub async fn rm(
    client: &mut Client,
    images: &[String],
    whole: bool,
    output: Output,
) -> anyhow::Result<Exit> {
    let mut removes = Vec::new();
    for name in images {
        match (split(name), whole) {
            (None, true) => {
                removes.push(("repository", Remove { name: name.clone(), ..Remove::default() }))
            }
            (Some((repository, reference)), false) => {
                let (repository, reference) = (repository.to_owned(), reference.to_owned());
                removes.push(("image", Remove { repository, reference, ..Remove::default() }));
            }
            (None, false) => {
                let text = format!("`{name}` is a whole repository");
                let remedy = "name a tag, NAME:TAG, or take the whole: --repository";
                return Err(Failure::usage(text).remedy(remedy).into());
            }
            (Some(_), true) => {
                let text = format!("`{name}` is no repository, but one image of it");
                return Err(Failure::usage(text).remedy("leave --repository out").into());
            }
        }
    }
    let mut removed = Vec::new();
    for (path, remove) in &removes {
        let done: Done = client.send(Method::DELETE, path, remove).await?;
        removed.extend(done.removed);
    }
    output::print(output, &Done { removed }, |done| {
        done.removed.iter().map(|name| format!("removed {name}\n")).collect()
    })?;
    Ok(Exit::Done)
}

/// Shows or changes who may do what.
pub async fn share(client: &mut Client, args: ShareArgs) -> anyhow::Result<Exit> {
    let output = args.output;
    let target = args.target.clone();
    let share = Share {
        target: args.target,
        private: args.private,
        public: match (args.public, args.not_public) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        read_users: users(&args.read)?,
        read_groups: args.read_group,
        write_users: users(&args.write)?,
        write_groups: args.write_group,
        remove_users: users(&args.remove)?,
        remove_groups: args.remove_group,
    };
    let nothing = Share { target: target.clone(), ..Share::default() };
    let owner = target.split('/').next().unwrap_or_default();
    let asks = serde_json::to_value(&share)? == serde_json::to_value(&nothing)?;
    let sharing: Sharing = if asks {
        client.get("rights", &[("owner", owner)]).await?
    } else {
        client.send(Method::POST, "share", &share).await?
    };
    let show = |sharing: &Sharing| sharing_table(sharing, &target);
    output::print(output, &sharing, show)?;
    Ok(Exit::Done)
}

fn users(names: &[String]) -> anyhow::Result<Vec<OwnerName>> {
    let parse = |name: &String| {
        name.parse().map_err(|error| Failure::usage(format!("user `{name}`: {error}")).into())
    };
    names.iter().map(parse).collect()
}

fn sharing_table(sharing: &Sharing, target: &str) -> String {
    let mut entries: BTreeMap<&str, &Access> = BTreeMap::new();
    if target.contains('/') {
        match sharing.repositories.get(target) {
            Some(access) => entries.insert(target, access),
            None => entries.insert("all without own rules", &sharing.default),
        };
    } else {
        entries.insert("all without own rules", &sharing.default);
        entries.extend(sharing.repositories.iter().map(|(name, access)| (name.as_str(), access)));
    }
    let rows: Vec<Vec<String>> = entries
        .into_iter()
        .map(|(name, access)| {
            let list = |users: &std::collections::BTreeSet<String>,
                        groups: &std::collections::BTreeSet<String>| {
                let groups = groups.iter().map(|group| format!("group {group}"));
                users.iter().cloned().chain(groups).collect::<Vec<_>>().join(", ")
            };
            let everybody = if access.public { "everybody" } else { "" }.to_owned();
            let mut read = list(&access.read_users, &access.read_groups);
            if access.public {
                read = if read.is_empty() { everybody } else { format!("everybody, {read}") };
            }
            let write = list(&access.write_users, &access.write_groups);
            vec![name.to_owned(), or_dash(read), or_dash(write)]
        })
        .collect();
    output::table(&["repository", "may pull", "may pull and push"], &[], &rows)
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Shows or sets quotas.
pub async fn quota(
    client: &mut Client,
    owner: Option<String>,
    size: Option<NewQuota>,
    all: bool,
    output: Output,
) -> anyhow::Result<Exit> {
    if all {
        let owners: Vec<Usage> = client.all("owners", &[], "owners").await?;
        output::print(output, &owners, |owners| usage_table(owners))?;
        return Ok(Exit::Done);
    }
    let owner = or_me(client, owner).await?;
    let usage: Usage = match size {
        None => client.get("usage", &[("owner", &owner)]).await?,
        Some(size) => {
            let set = SetQuota {
                owner: name(&owner)?,
                bytes: match size {
                    NewQuota::Bytes(bytes) => Some(bytes),
                    NewQuota::Default | NewQuota::Unlimited => None,
                },
                unlimited: size == NewQuota::Unlimited,
            };
            client.send(Method::PUT, "quota", &set).await?
        }
    };
    output::print(output, &usage, |usage| usage_table(std::slice::from_ref(usage)))?;
    Ok(Exit::Done)
}

fn name(text: &str) -> anyhow::Result<OwnerName> {
    text.parse().map_err(|error| Failure::usage(format!("owner `{text}`: {error}")).into())
}

fn usage_table(owners: &[Usage]) -> String {
    let row = |usage: &Usage| {
        let limit = usage.limit.map_or_else(|| "none".to_owned(), show_bytes);
        let percent = match usage.limit {
            Some(limit) if limit > 0 => {
                format!("{} %", u128::from(usage.used) * 100 / u128::from(limit))
            }
            _ => String::new(),
        };
        vec![
            usage.owner.clone(),
            usage.kind.clone().unwrap_or_else(|| "-".to_owned()),
            show_bytes(usage.used),
            show_bytes(usage.reserved),
            limit,
            percent,
            if usage.default_limit { "default" } else { "" }.to_owned(),
            show_count(usage.blobs),
        ]
    };
    let head = ["owner", "", "used", "reserved", "limit", "", "", "blobs"];
    output::table(&head, &[2, 3, 4, 5, 7], &owners.iter().map(row).collect::<Vec<_>>())
}

/// The person who gets a name.
pub struct NewOwner {
    /// Who knows them.
    pub authority: String,
    /// Their id there.
    pub uid: Option<u32>,
    /// Their name there.
    pub login: Option<String>,
}

/// Gives a name to another person.
pub async fn chown(
    client: &mut Client,
    owner: &str,
    to: NewOwner,
    output: Output,
) -> anyhow::Result<Exit> {
    let NewOwner { authority, uid, login } = to;
    let body = Reassign { owner: name(owner)?, authority, uid, login };
    let usage: Usage = client.send(Method::POST, "owner", &body).await?;
    output::print(output, &usage, |usage| {
        let uid = usage.uid.map(|uid| format!(", uid {uid}")).unwrap_or_default();
        let authority = usage.authority.clone().unwrap_or_default();
        format!("{} belongs to a user of {authority}{uid} now\n", usage.owner)
    })?;
    Ok(Exit::Done)
}

/// Makes a group or changes its managers.
pub async fn group(client: &mut Client, command: GroupCommand) -> anyhow::Result<Exit> {
    let (args, change): (GroupArgs, bool) = match command {
        GroupCommand::Create(args) => (args, false),
        GroupCommand::Set(args) => (args, true),
    };
    let managers = users(&args.manager)?.into_iter().collect();
    let body = Group { name: name(&args.name)?, managers, change };
    let usage: Usage = client.send(Method::POST, "group", &body).await?;
    output::print(args.output, &usage, |usage| {
        let managers: Vec<&str> = usage.managers.iter().map(String::as_str).collect();
        format!("group {}, managed by {}\n", usage.owner, managers.join(", "))
    })?;
    Ok(Exit::Done)
}
