//! Commands about homes and their limits.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use yadokari_fs::home::homes::{self, HomesError};

use super::{Output, SnapshotCommand};
use crate::size::{parse_bytes_arg, parse_count_arg};

/// `yadokari home …`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  yadokari home create ada --quota 50G --inodes 1M
  yadokari home list
  yadokari home set-quota ada --quota 100G
  yadokari home snapshot create ada before-upgrade
  yadokari home remove ada             can be undone for 7 days:
  yadokari home restore ada")]
pub enum HomeCommand {
    /// Make a home
    #[command(after_help = "\
Root makes homes for anybody; everybody else only their own.

Examples:
  yadokari home create ada
  yadokari home create ada --quota 50G --inodes 1M
  yadokari home create project7 --owner ada --quota 2T

Exits with 4 if the home exists already.")]
    Create {
        /// Name of the home, usually the user's
        #[arg(value_parser = home_name)]
        name: String,
        /// User (name or number) who owns it [default: the user of that name]
        #[arg(long, value_name = "USER")]
        owner: Option<String>,
        #[command(flatten)]
        limits: QuotaLimits,
        #[command(flatten)]
        output: Output,
    },
    /// List homes
    #[command(after_help = "\
Examples:
  yadokari home list
  yadokari home list --json | jq -r '.[].name'")]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Show one home: owner, use, limits, who serves it
    #[command(after_help = "\
Examples:
  yadokari home show ada
  yadokari home show ada --json

Exits with 3 if there is no such home.")]
    Show {
        /// Name of the home
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Change the limits of a home, at once
    #[command(after_help = "\
A limit below what is used is allowed: nothing can be added until enough was deleted.

Examples:
  yadokari home set-quota ada --quota 100G
  yadokari home set-quota ada --quota none --inodes 2M")]
    SetQuota {
        /// Name of the home
        name: String,
        #[command(flatten)]
        limits: QuotaLimits,
        #[command(flatten)]
        output: Output,
    },
    /// Remove a home; `restore` brings it back for 7 days
    #[command(after_help = "Examples:\n  yadokari home remove ada")]
    Remove {
        /// Name of the home
        name: String,
    },
    /// Snapshots of a home: .snapshots/NAME in it
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Make a new home with everything that another has
    #[command(after_help = "\
The new home belongs to the same owner and shares nothing with the other, which may be removed.

Examples:
  yadokari home clone ada ada2
  yadokari home clone ada@before-upgrade ada-old --quota 50G

Exits with 3 if there is no such home or snapshot, with 4 if NEW exists already.")]
    Clone {
        /// The home, or HOME@SNAPSHOT
        home: String,
        /// Name of the new home
        #[arg(value_parser = home_name)]
        new: String,
        #[command(flatten)]
        limits: QuotaLimits,
        #[command(flatten)]
        output: Output,
    },
    /// Write a home to a tar archive
    #[command(after_help = "\
Shows one moment, while the home is in use too. tar and bsdtar read it.

Examples:
  yadokari home export ada ada.tar
  yadokari home export ada@before-upgrade | zstd > ada.tar.zst
  yadokari home export ada | ssh other yadokari home import ada")]
    Export {
        /// The home, or HOME@SNAPSHOT
        home: String,
        /// The file, - for standard output
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Make a home of a tar archive
    #[command(after_help = "\
Modes, owners (by number), times, links, ACLs, attributes and holes are as in the archive.
A failure leaves no home behind.

Examples:
  yadokari home import ada ada.tar
  zstd -dc ada.tar.zst | yadokari home import ada --quota 50G

Exits with 4 if the home exists already.")]
    Import {
        /// Name of the new home
        #[arg(value_parser = home_name)]
        name: String,
        /// The file, - for standard input
        #[arg(default_value = "-")]
        file: PathBuf,
        /// User (name or number) whom it is for [default: the user of that name]
        #[arg(long, value_name = "USER")]
        owner: Option<String>,
        #[command(flatten)]
        limits: QuotaLimits,
        #[command(flatten)]
        output: Output,
    },
    /// Bring a removed home back
    #[command(after_help = "Examples:\n  yadokari home restore ada")]
    Restore {
        /// Name of the home
        name: String,
    },
}

/// The name of a home that is to be made.
fn home_name(text: &str) -> Result<String, HomesError> {
    homes::check_name(text)?;
    Ok(text.to_owned())
}

/// Limits of a home.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct QuotaLimits {
    /// Bytes that it may use: 50G (binary, 50 x 2^30), 50GB (decimal) or none
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes_arg, allow_negative_numbers = true)]
    pub quota: Option<u64>,
    /// Files and directories that it may hold: 1M (1,000,000) or none
    #[arg(long, value_name = "COUNT", value_parser = parse_count_arg, allow_negative_numbers = true)]
    pub inodes: Option<u64>,
}

/// `yadokari quota`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadokari quota               my own home
  yadokari quota ada
  yadokari quota --json | jq .bytes")]
pub struct QuotaArgs {
    /// The home [default: the one of your name]
    pub home: Option<String>,
    #[command(flatten)]
    pub output: Output,
}
