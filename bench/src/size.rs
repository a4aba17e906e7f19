//! How much work a run does.

use std::time::Duration;

use clap::Args;

/// Full, the form for every day, and the form that only shows that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The size whose figures count.
    Full,
    /// Under five minutes.
    Quick,
    /// Seconds; the figures say nothing.
    Tiny,
}

impl Size {
    /// One of three values.
    pub fn of<T>(self, full: T, quick: T, tiny: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
            Self::Tiny => tiny,
        }
    }

    /// Files in the archive of sources.
    pub fn files(self) -> usize {
        self.of(20_000, 3_000, 60)
    }

    /// Bytes of the large file.
    pub fn large_bytes(self) -> u64 {
        self.of(1 << 30, 128 << 20, 2 << 20)
    }

    /// Rounds where nothing else is said.
    pub fn rounds(self) -> usize {
        self.of(3, 1, 1)
    }

    /// A script that takes longer is stopped, and the table says so.
    pub fn limit(self) -> Duration {
        Duration::from_secs(self.of(600, 60, 120))
    }

    /// Whether runs wait until the cluster has dropped what was deleted: what less than the full
    /// size leaves there has room beside what the next run writes.
    pub fn drains(self) -> bool {
        self.of(true, false, false)
    }

    /// As results name it.
    pub fn name(self) -> &'static str {
        self.of("full", "quick", "tiny")
    }
}

/// What is to be measured, and how much of it.
#[derive(Debug, Args)]
pub struct Chosen {
    /// Workloads; all when not said
    pub names: Vec<String>,
    /// Less of everything: some minutes
    #[arg(long)]
    pub quick: bool,
    /// Next to nothing: shows that it runs
    #[arg(long, conflicts_with = "quick")]
    pub tiny: bool,
    /// Whom to measure; all when not said
    #[arg(long, value_delimiter = ',')]
    pub contenders: Vec<String>,
}

impl Chosen {
    /// How much.
    pub fn size(&self) -> Size {
        match (self.quick, self.tiny) {
            (true, _) => Size::Quick,
            (_, true) => Size::Tiny,
            _ => Size::Full,
        }
    }
}
