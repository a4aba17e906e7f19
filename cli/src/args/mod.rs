//! What can be typed: the commands, their options and their help, as clap derives them.
//!
//! Only syntax lives here. What a missing option means is decided in [`crate::config`], so that
//! flags, environment and the configuration file are weighed in one place.

mod home;
mod image;
mod node;
mod setup;
mod snapshot;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use home::{HomeCommand, QuotaArgs, QuotaLimits};
pub use image::{
    Expiry, GroupArgs, GroupCommand, ImageArgs, ImageCommand, NewQuota, RegistryArgs, ShareArgs,
    TokenCommand,
};
pub use node::{
    FsckArgs, GatewayArgs, MountArgs, NodeArgs, ServeArgs, StatsArgs, SyncArgs, UmountArgs, UpArgs,
};
pub use setup::{CompletionArgs, SetupCommand};
pub use snapshot::{SnapshotCommand, Switch};

/// Shown below the list of commands.
const EXAMPLES: &str = "\
Examples:
  yadokari doctor                          is this machine ready?
  yadokari up                              serve homes on this machine, no cluster needed
  yadokari up --store rados://homes        the same homes, kept in a Ceph pool
  yadokari home create ada --quota 50G     a home for the user ada
  yadokari quota                           how much of my home is used
  yadokari setup podman                    make rootless Podman fast in a home
  yadokari image share ada/app --read bob  let bob pull an image

Configuration: flags win over the environment (YADOKARI_*), that over the configuration file
(--config, else DATA/yadokari.toml), that over the defaults.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused.";

/// Home directories for every node of a cluster, kept in Ceph.
#[derive(Debug, Parser)]
#[command(name = "yadokari", version, about, after_help = EXAMPLES, max_term_width = 100)]
#[command(propagate_version = true, arg_required_else_help = true, infer_subcommands = false)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The instance that is meant, by its data directory, running or not
    ///
    /// Default: /var/lib/yadokari for root, $XDG_DATA_HOME/yadokari (~/.local/share/yadokari)
    /// for everybody else; commands of those who have none mean the machine's, where it runs.
    #[arg(long, global = true, value_name = "DIR", env = "YADOKARI_DATA", hide_env_values = true)]
    #[arg(help_heading = "Options of every command")]
    pub data: Option<PathBuf>,
    /// Read this configuration file instead of DATA/yadokari.toml
    #[arg(long, global = true, value_name = "FILE", env = "YADOKARI_CONFIG")]
    #[arg(hide_env_values = true, help_heading = "Options of every command")]
    pub config: Option<PathBuf>,
    /// What is logged to standard error: error, warn, info, debug, trace, or a filter such as
    /// `info,yadokari_fs=debug`
    #[arg(long, global = true, value_name = "FILTER", env = "YADOKARI_LOG")]
    #[arg(hide_env_values = true, help_heading = "Options of every command")]
    pub log: Option<String>,
}

/// How facts are printed.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Output {
    /// Print JSON with stable field names; sizes in bytes, times in seconds since 1970
    #[arg(long)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve everything on this machine, in the foreground
    Up(UpArgs),
    /// Run the daemon of a cluster node
    Node(NodeArgs),
    /// Run a registry gateway alone
    Gateway(GatewayArgs),
    /// Mount one home somewhere, as any user
    Mount(MountArgs),
    /// Unmount what `mount` mounted
    Umount(UmountArgs),
    /// Make, list, limit, remove and restore homes
    #[command(subcommand)]
    Home(HomeCommand),
    /// Look at, share and remove images in a registry
    Image(ImageArgs),
    /// Show what a home uses and may use
    Quota(QuotaArgs),
    /// Show whether the instance runs and what it serves
    #[command(
        after_help = "Examples:\n  yadokari status\n  yadokari status --json | jq .homes_open"
    )]
    Status(Output),
    /// Watch the running instance: requests, bytes, caches
    Stats(StatsArgs),
    /// Make everything that was written durable, now
    Sync(SyncArgs),
    /// Check homes, and repair what can be repaired safely
    Fsck(FsckArgs),
    /// Check whether this machine is ready, with the remedy for each thing that is not
    #[command(after_help = "\
Each line is ok, warn (works, but not as well as it could) or fail, and says what to do.

Examples:
  yadokari doctor
  yadokari doctor --json | jq -r '.checks[] | select(.result != \"ok\") | .remedy'

Exits with 1 if anything fails.")]
    Doctor(Output),
    /// Make other programs ready for homes
    #[command(subcommand)]
    Setup(SetupCommand),
    /// Print the completion script of a shell
    Completion(CompletionArgs),
}
