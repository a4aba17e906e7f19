//! Commands about images in a registry.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Output;
use crate::size::{NO_LIMIT, parse_bytes, parse_duration};

/// `yadokari image …`.
#[derive(Debug, Args)]
#[command(after_help = "\
NAME is OWNER/REPOSITORY, and may begin with the registry, as for podman:
registry.example/ada/app. Without one, the registry is --registry, else the one that runs on this
machine, else the one in /etc/containers/registries.conf.d.

On this machine's own registry nobody needs to log in. Elsewhere the credentials are those of
`podman login`.

Examples:
  yadokari image ls                            what I may read
  yadokari image ls --untagged ada             what will be collected
  yadokari image share ada/app --read bob      bob may pull
  yadokari image share ada/app --public        everybody may
  yadokari image rm ada/app:old
  yadokari image token create ci --scope repository:ada/*:pull,push --expires 90d")]
pub struct ImageArgs {
    #[command(flatten)]
    pub to: RegistryArgs,
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// Which registry, and who asks.
#[derive(Debug, Clone, Default, Args)]
pub struct RegistryArgs {
    /// The registry: HOST[:PORT], or http://HOST:PORT where there is no TLS
    #[arg(long, global = true, value_name = "REGISTRY", env = "YADOKARI_REGISTRY")]
    #[arg(hide_env_values = true, help_heading = "Which registry")]
    pub registry: Option<String>,
    /// Credentials, as podman stores them [default: where podman looks]
    #[arg(long, global = true, value_name = "FILE", env = "REGISTRY_AUTH_FILE")]
    #[arg(hide_env_values = true, help_heading = "Which registry")]
    pub authfile: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List repositories that I may read, or images that nothing keeps
    #[command(after_help = "\
Examples:
  yadokari image ls
  yadokari image ls ada
  yadokari image ls --untagged ada/app
  yadokari image ls --json | jq -r '.[] | select(.public).name'")]
    Ls {
        /// Of this owner, or this repository alone [default: of everybody]
        #[arg(value_name = "OWNER|NAME")]
        of: Option<String>,
        /// Images that no tag, index or subject keeps; they are collected after some days
        #[arg(long)]
        untagged: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Show a repository, or one image of it
    #[command(after_help = "\
Examples:
  yadokari image show ada/app
  yadokari image show ada/app:latest
  yadokari image show ada/app@sha256:… --json

Exits with 3 if there is no such image, or none that you may see.")]
    Show {
        /// NAME, NAME:TAG or NAME@DIGEST
        #[arg(value_name = "NAME[:TAG|@DIGEST]")]
        image: String,
        #[command(flatten)]
        output: Output,
    },
    /// List the tags of a repository with what they point to
    #[command(after_help = "Examples:\n  yadokari image tags ada/app")]
    Tags {
        /// The repository
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Remove tags, images, or a whole repository
    #[command(after_help = "\
Removing a tag leaves the image for some days under its digest; removing a digest takes its tags
with it. Space is given back by collection, some time later.

Examples:
  yadokari image rm ada/app:old ada/app:older
  yadokari image rm ada/app@sha256:…
  yadokari image rm --repository ada/app

Exits with 3 if there is no such image, with 4 if you may not remove it.")]
    Rm {
        /// NAME:TAG or NAME@DIGEST; with --repository, NAME
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// The whole repository with all that it holds
        #[arg(long)]
        repository: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Show or change who may pull from and push to a repository
    Share(ShareArgs),
    /// Show what the repositories of an owner take
    #[command(after_help = "\
A layer that several repositories of an owner have counts once in the total, so that it may be
less than the sum.

Examples:
  yadokari image du
  yadokari image du ada --json | jq .used")]
    Du {
        /// Whose [default: mine]
        owner: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Show or set how much the images of an owner may take
    #[command(after_help = "\
Only administrators set quotas. A quota below what is used is allowed: nothing can be pushed
until enough was removed.

Examples:
  yadokari image quota                 mine
  yadokari image quota --all           everybody's (administrators)
  yadokari image quota ada 50G
  yadokari image quota ada default     what the registry's configuration says")]
    Quota {
        /// Whose [default: mine]
        owner: Option<String>,
        /// The new limit: 50G (binary), 50GB (decimal), none or default
        #[arg(value_parser = parse_quota)]
        size: Option<NewQuota>,
        /// Of all owners
        #[arg(long, conflicts_with_all = ["owner", "size"])]
        all: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Give a name with all its images to another person (administrators)
    #[command(after_help = "\
A name belongs to the person who first pushed under it. When somebody else gets that name later,
another user id on the same machine or an entry in another directory, the registry refuses them
until an administrator decides here that the images are theirs now.

Examples:
  yadokari image chown ada --authority system --uid 1007
  yadokari image chown ada --authority ldap --uid 20031")]
    Chown {
        /// The name
        owner: String,
        /// Who knows the person: system, ldap, htpasswd, or what the configuration calls it
        #[arg(long)]
        authority: String,
        /// The person's id there, where there are ids
        #[arg(long)]
        uid: Option<u32>,
        /// The person's name there, where it is another
        #[arg(long)]
        login: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Make a group that owns repositories, or change who manages it (administrators)
    #[command(subcommand)]
    Group(GroupCommand),
    /// Make, list and remove tokens for programs
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show who the registry takes me for
    #[command(after_help = "Examples:\n  yadokari image whoami")]
    Whoami(Output),
}

/// `yadokari image share`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without options it shows what is shared. A repository that was never shared by itself follows
what its owner shares as a whole; from its first own change on it follows only itself.

Examples:
  yadokari image share ada/app                     show
  yadokari image share ada/app --read bob,carol    they may pull
  yadokari image share ada/app --write-group lab   its members may push as well
  yadokari image share ada/app --public            everybody may pull, without login
  yadokari image share ada --read bob              all my repositories that have no own rules
  yadokari image share ada/app --remove bob
  yadokari image share ada/app --private           take everything back")]
pub struct ShareArgs {
    /// A repository, or an owner for all that have no rules of their own
    #[arg(value_name = "NAME|OWNER")]
    pub target: String,
    /// Everybody may pull, without login
    #[arg(long, conflicts_with = "not_public")]
    pub public: bool,
    /// Not everybody any more
    #[arg(long)]
    pub not_public: bool,
    /// Users who may pull
    #[arg(long, value_name = "USER", value_delimiter = ',')]
    pub read: Vec<String>,
    /// Users who may pull, push and delete
    #[arg(long, value_name = "USER", value_delimiter = ',')]
    pub write: Vec<String>,
    /// Groups whose members may pull
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub read_group: Vec<String>,
    /// Groups whose members may pull, push and delete
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub write_group: Vec<String>,
    /// Users who may do nothing any more
    #[arg(long, value_name = "USER", value_delimiter = ',')]
    pub remove: Vec<String>,
    /// Groups that may do nothing any more
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub remove_group: Vec<String>,
    /// Take everything back first
    #[arg(long)]
    pub private: bool,
    #[command(flatten)]
    pub output: Output,
}

/// `yadokari image group …`.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Make a group
    #[command(after_help = "Examples:\n  yadokari image group create lab --manager ada,bob")]
    Create(GroupArgs),
    /// Replace the managers of a group
    #[command(after_help = "Examples:\n  yadokari image group set lab --manager carol")]
    Set(GroupArgs),
}

/// A group and its managers.
#[derive(Debug, Args)]
pub struct GroupArgs {
    /// Its name: the first part of its repositories' names
    pub name: String,
    /// Users who may do everything with its repositories
    #[arg(long, required = true, value_name = "USER", value_delimiter = ',')]
    pub manager: Vec<String>,
    #[command(flatten)]
    pub output: Output,
}

/// `yadokari image token …`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A token acts for its user, below its scopes, and never manages anything. It logs in as USER+NAME:

  yadokari image token create ci --scope repository:ada/app:pull,push
  podman login -u ada+ci registry.example")]
pub enum TokenCommand {
    /// Make a token; its secret is shown once
    #[command(after_help = "\
A scope is repository:NAME:ACTIONS. NAME may end in /* for all below it, or be * for all that the
user may use; ACTIONS are pull, push, delete, or * for all three.

Examples:
  yadokari image token create ci --scope repository:ada/app:pull,push
  yadokari image token create mirror --scope 'repository:*:pull' --expires never
  yadokari image token create ci --scope 'repository:ada/*:pull' --json | jq -r .secret")]
    Create {
        /// Its name: lower-case letters, digits, and . _ - between them
        name: String,
        /// What it may do; several times for several
        #[arg(long, required = true, value_name = "SCOPE")]
        scope: Vec<String>,
        /// How long it is good: 12h, 90d or never
        #[arg(long, default_value = "90d", value_parser = parse_expiry)]
        expires: Expiry,
        #[command(flatten)]
        output: Output,
    },
    /// List tokens
    #[command(after_help = "Examples:\n  yadokari image token ls")]
    Ls {
        /// Whose (administrators) [default: mine]
        #[arg(long, value_name = "USER")]
        of: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Remove tokens; they are refused within a second
    #[command(after_help = "Examples:\n  yadokari image token rm ci")]
    Rm {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
        /// Whose (administrators) [default: mine]
        #[arg(long, value_name = "USER")]
        of: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

/// What a quota is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewQuota {
    Default,
    Unlimited,
    Bytes(u64),
}

/// How long a token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    Never,
    After(Duration),
}

fn parse_quota(text: &str) -> Result<NewQuota, String> {
    if text == "default" {
        return Ok(NewQuota::Default);
    }
    let bytes = parse_bytes(text)?;
    Ok(if bytes == NO_LIMIT { NewQuota::Unlimited } else { NewQuota::Bytes(bytes) })
}

fn parse_expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry::Never);
    }
    let after = parse_duration(text)?;
    if after.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(Expiry::After(after)) }
}
