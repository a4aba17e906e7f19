//! Commands about the snapshots of a home.

use clap::{Subcommand, ValueEnum};

use super::Output;

/// `yadokari home snapshot …`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Snapshots are in .snapshots/NAME of the home, which is not listed: cd, ls and cp find it.

Examples:
  yadokari home snapshot create ada before-upgrade
  yadokari home snapshot list ada
  cp -a ~ada/.snapshots/before-upgrade/project ~ada/      brings something back
  yadokari home snapshot rm ada before-upgrade")]
pub enum SnapshotCommand {
    /// Make a snapshot of a home as it is now
    #[command(after_help = "\
Costs what changes from now on, which does not count in the quota. Stays until it is removed.

Examples:
  yadokari home snapshot create ada
  yadokari home snapshot create ada before-upgrade

Exits with 4 if there is a snapshot of that name.")]
    Create {
        /// The home
        home: String,
        /// Name of the snapshot: letters, digits and _ - . + : [default: the time]
        name: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List the snapshots of a home, oldest first
    #[command(after_help = "Examples:\n  yadokari home snapshot list ada --json")]
    List {
        /// The home
        home: String,
        #[command(flatten)]
        output: Output,
    },
    /// Remove a snapshot and free what only it holds
    #[command(after_help = "Examples:\n  yadokari home snapshot rm ada before-upgrade")]
    Rm {
        /// The home
        home: String,
        /// Name of the snapshot
        name: String,
    },
    /// Switch the hourly, daily and weekly snapshots of a home on or off
    #[command(after_help = "\
How many are kept is configured for all homes: snapshots.hourly, .daily and .weekly.

Examples:
  yadokari home snapshot schedule scratch off")]
    Schedule {
        /// The home
        home: String,
        /// on or off
        state: Switch,
        #[command(flatten)]
        output: Output,
    },
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Make snapshots.
    On,
    /// Make none; those that there are stay.
    Off,
}
