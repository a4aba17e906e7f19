//! Commands that look: ls, show, tags, du.

use serde::Serialize;
use yadokari_gateway::api::{Image, Repository, Usage, WhoAmI};

use super::client::{Client, is_not_found};
use crate::args::Output;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::size::{show_bytes, show_count, show_duration};

/// Digests are shown with so many characters to people.
const DIGEST_SHOWN: usize = "sha256:".len() + 12;

/// Lists repositories, or images that nothing keeps.
pub async fn ls(
    client: &mut Client,
    of: Option<&str>,
    untagged: bool,
    output: Output,
) -> anyhow::Result<Exit> {
    let repositories = repositories(client, of).await?;
    if !untagged {
        output::print(output, &repositories, |all| table(all))?;
        return Ok(Exit::Done);
    }
    let mut found: Vec<Image> = Vec::new();
    for repository in repositories.iter().filter(|repository| repository.untagged > 0) {
        let images = images(client, &repository.name).await?;
        found.extend(images.into_iter().filter(|image| image.untagged_since.is_some()));
    }
    output::print(output, &found, |found| untagged_table(found))?;
    Ok(Exit::Done)
}

/// One repository, those of an owner, or all.
async fn repositories(client: &mut Client, of: Option<&str>) -> anyhow::Result<Vec<Repository>> {
    match of {
        Some(name) if name.contains('/') => {
            Ok(vec![client.get("repository", &[("name", name)]).await?])
        }
        Some(owner) => client.all("repositories", &[("owner", owner)], "repositories").await,
        None => client.all("repositories", &[], "repositories").await,
    }
}

async fn images(client: &mut Client, repository: &str) -> anyhow::Result<Vec<Image>> {
    client.all("images", &[("repository", repository)], repository).await
}

fn table(all: &[Repository]) -> String {
    let row = |r: &Repository| {
        vec![
            r.name.clone(),
            show_count(r.tags),
            show_count(r.manifests),
            show_count(r.untagged),
            show_bytes(r.bytes),
            r.pushed.map(ago).unwrap_or_default(),
            if r.public { "public" } else { "" }.to_owned(),
            r.permission.clone(),
        ]
    };
    let head = ["repository", "tags", "images", "untagged", "size", "pushed", "", "i may"];
    output::table(&head, &[1, 2, 3, 4], &all.iter().map(row).collect::<Vec<_>>())
}

fn untagged_table(found: &[Image]) -> String {
    let row = |image: &Image| {
        vec![
            format!("{}@{}", image.repository, image.digest),
            show_bytes(image.bytes),
            ago(image.pushed),
            image.untagged_since.map(ago).unwrap_or_default(),
        ]
    };
    let head = ["image", "size", "pushed", "untagged since"];
    output::table(&head, &[1], &found.iter().map(row).collect::<Vec<_>>())
}

/// Shows a repository or one image.
pub async fn show(client: &mut Client, name: &str, output: Output) -> anyhow::Result<Exit> {
    let Some((repository, reference)) = split(name) else {
        let found: Repository = client.get("repository", &[("name", name)]).await?;
        output::print(output, &found, repository_facts)?;
        return Ok(Exit::Done);
    };
    let query = [("repository", repository), ("reference", reference)];
    let image: Image = client.get("image", &query).await?;
    output::print(output, &image, image_facts)?;
    Ok(Exit::Done)
}

/// `NAME:TAG` and `NAME@DIGEST` in two.
pub fn split(name: &str) -> Option<(&str, &str)> {
    name.split_once('@').or_else(|| name.rsplit_once(':'))
}

fn repository_facts(r: &Repository) -> String {
    output::facts(&[
        ("repository", r.name.clone()),
        ("tags", show_count(r.tags)),
        ("images", show_count(r.manifests)),
        ("untagged", show_count(r.untagged)),
        ("size", show_bytes(r.bytes)),
        ("pushed", r.pushed.map(ago).unwrap_or_default()),
        ("public", if r.public { "yes" } else { "no" }.to_owned()),
        ("i may", r.permission.clone()),
    ])
}

fn image_facts(image: &Image) -> String {
    let mut lines = vec![
        ("image", format!("{}@{}", image.repository, image.digest)),
        ("tags", image.tags.join(", ")),
        ("type", image.artifact_type.clone().unwrap_or_else(|| image.media_type.clone())),
        ("size", show_bytes(image.bytes)),
        ("layers", show_count(image.layers as u64)),
        ("pushed", ago(image.pushed)),
    ];
    if let Some(created) = image.created {
        lines.push(("made", ago(created)));
    }
    if let Some(subject) = &image.subject {
        lines.push(("refers to", subject.clone()));
    }
    if !image.children.is_empty() {
        lines.push(("lists", image.children.join("\n           ")));
    }
    if let Some(since) = image.untagged_since {
        lines.push(("kept by", format!("nothing, since {}", ago(since))));
    }
    output::facts(&lines)
}

/// Lists tags with what they point to.
pub async fn tags(client: &mut Client, name: &str, output: Output) -> anyhow::Result<Exit> {
    #[derive(Serialize)]
    struct Tag {
        tag: String,
        #[serde(flatten)]
        image: Image,
    }
    let images = images(client, name).await?;
    let mut tags: Vec<Tag> = images
        .into_iter()
        .flat_map(|image| {
            let tags = image.tags.clone();
            tags.into_iter().map(move |tag| Tag { tag, image: image.clone() })
        })
        .collect();
    tags.sort_by(|a, b| a.tag.cmp(&b.tag));
    output::print(output, &tags, |tags| {
        let row = |tag: &Tag| {
            let digest: String = tag.image.digest.chars().take(DIGEST_SHOWN).collect();
            vec![tag.tag.clone(), digest, show_bytes(tag.image.bytes), ago(tag.image.pushed)]
        };
        let rows: Vec<_> = tags.iter().map(row).collect();
        output::table(&["tag", "image", "size", "pushed"], &[2], &rows)
    })?;
    Ok(Exit::Done)
}

/// Shows what an owner's repositories take.
pub async fn du(
    client: &mut Client,
    owner: Option<String>,
    output: Output,
) -> anyhow::Result<Exit> {
    #[derive(Serialize)]
    struct Du {
        #[serde(flatten)]
        usage: Usage,
        repositories: Vec<Repository>,
    }
    let owner = or_me(client, owner).await?;
    let usage: Usage = client.get("usage", &[("owner", &owner)]).await?;
    let mut repositories = match repositories(client, Some(&owner)).await {
        Err(error) if is_not_found(&error) => Vec::new(),
        other => other?,
    };
    repositories.sort_by_key(|repository| std::cmp::Reverse(repository.bytes));
    output::print(output, &Du { usage, repositories }, |du| {
        let row = |r: &Repository| vec![show_bytes(r.bytes), r.name.clone()];
        let mut rows: Vec<_> = du.repositories.iter().map(row).collect();
        let limit = du.usage.limit.map(|limit| format!(" of {}", show_bytes(limit)));
        let limit = limit.unwrap_or_default();
        let total = format!("together{limit}, each layer once");
        rows.push(vec![show_bytes(du.usage.used), total]);
        output::table(&["size", "repository"], &[0], &rows)
    })?;
    Ok(Exit::Done)
}

/// An owner, the caller when none is named.
pub async fn or_me(client: &mut Client, owner: Option<String>) -> anyhow::Result<String> {
    if let Some(owner) = owner {
        return Ok(owner);
    }
    let me: WhoAmI = client.get("whoami", &[]).await?;
    let unknown = || {
        Failure::refused("the registry does not know who you are")
            .remedy("log in with podman login, or name the owner")
    };
    Ok(me.name.ok_or_else(unknown)?)
}

/// How long ago a moment was, in the largest unit that fits.
pub fn ago(seconds: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let passed = now.map_or(0, |now| now.as_secs().saturating_sub(seconds));
    format!("{} ago", show_duration(passed))
}
