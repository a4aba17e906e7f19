//! Commands that prepare other programs and shells.

use clap::{Args, Subcommand};
use clap_complete::Shell;

use super::Output;

/// `yadokari setup …`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  yadokari setup podman --dry-run\n  yadokari setup podman")]
pub enum SetupCommand {
    /// Make Podman use the kernel's own overlay in a home, and this machine's registry
    Podman(SetupPodmanArgs),
}

/// `yadokari setup podman`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Podman chooses the slow driver `vfs` by itself on a file system that it does not know. This
writes `driver = \"overlay\"` without a mount program into storage.conf, and keeps every other
setting and comment of that file. Run it as the user (for ~/.config/containers/storage.conf), or
with --system as root (for /etc/containers/storage.conf).

It also tells Podman that the registry which `yadokari up` runs on this machine speaks plain HTTP
(an entry in registries.conf.d for its loopback address), so that users push and pull there
without TLS and without login:

  podman push 127.0.0.1:5000/$USER/app

`yadokari up` as root does that by itself for all users, for as long as it runs.

Podman before 4.6 does not find out that the overlays of a build in a home can be `volatile`, and
has the kernel sync each file that a build copies. For such a Podman this puts the answer where it
keeps it, in its run directory (asking `podman info` where that is), until the user's last logout;
with --system a script in /etc/profile.d does it at each login.

Storage that Podman filled with another driver would be out of reach afterwards, so this refuses
when there is any, and says how to save it.

Examples:
  yadokari setup podman --dry-run
  yadokari setup podman
  sudo yadokari setup podman --system

Exits with 4 if it refused.")]
pub struct SetupPodmanArgs {
    /// For all users of this machine: /etc/containers/storage.conf
    #[arg(long)]
    pub system: bool,
    /// The registry on this machine [default: the one that runs, else 127.0.0.1:5000]
    #[arg(long, value_name = "ADDR:PORT")]
    pub registry: Option<std::net::SocketAddr>,
    /// Only say what would be changed
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub output: Output,
}

/// `yadokari completion`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadokari completion bash > /etc/bash_completion.d/yadokari
  yadokari completion zsh > \"${fpath[1]}/_yadokari\"
  yadokari completion fish > ~/.config/fish/completions/yadokari.fish")]
pub struct CompletionArgs {
    /// The shell
    pub shell: Shell,
}
