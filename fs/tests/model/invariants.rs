//! What always holds of a home, by name.
//!
//! Those of the records are what `fsck` checks; they are looked at after every commit (as a
//! machine would find them that died right then), after every recovery, and when a home was
//! closed. The others compare with the reference and with what was promised.

use std::fmt;

use yadokari_fs::home::fsck::{Invariant as Finding, Report};

/// An invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// No extent points at a segment, chunk or small value that is not durable.
    ExtentsAreDurable,
    /// Every chunk that something refers to has the content that its hash names.
    ChunksVerify,
    /// References of chunks and small values, and what lives in segments, equal a recount.
    ReferencesEqualARecount,
    /// Bytes and inodes, of the home and of every inode, equal a recount.
    CountsEqualARecount,
    /// Links are the number of names.
    LinksAreCounted,
    /// No two entries for one name, no directory with two names, each where it is looked for.
    NamesAreUnique,
    /// All else that records say of one another.
    RecordsFitTogether,
    /// What a snapshot shows is kept, and all of it is there.
    SnapshotsAreWhole,
    /// Nothing takes space that nothing refers to.
    NothingLeaks,
    /// The tables and objects can be read.
    StoreIsReadable,
    /// Nothing that fsync acknowledged is missing, and no more than five seconds of the rest.
    AcknowledgedIsKept,
    /// Names after a crash are those of one moment; a file shows one of its states.
    CrashLeavesOneMoment,
    /// A home does what the reference does.
    BehavesAsTheReference,
}

impl Invariant {
    /// Which invariant a finding of `fsck` breaks.
    fn of(finding: Finding) -> Invariant {
        use Finding as F;
        match finding {
            F::SegmentMissing | F::SegmentShort | F::ExtentNowhere | F::ExtentPastSource => {
                Self::ExtentsAreDurable
            }
            F::ChunkDamaged => Self::ChunksVerify,
            F::ChunkReferences
            | F::SmallReferences
            | F::SegmentLive
            | F::SegmentRecordMissing
            | F::SegmentSize
            | F::CounterHeld => Self::ReferencesEqualARecount,
            F::CounterBytes
            | F::CounterInodes
            | F::CounterNextInode
            | F::CounterNextSmall
            | F::ChargedBytes
            | F::XattrCount
            | F::EntryCount => Self::CountsEqualARecount,
            F::LinkCount => Self::LinksAreCounted,
            F::EntryTwice | F::DirectoryTwice | F::EntryMisplaced => Self::NamesAreUnique,
            F::SnapshotMissing | F::SnapshotUnreadable | F::SnapshotNowhere | F::HeldUnlisted => {
                Self::SnapshotsAreWhole
            }
            F::ChunkUnused
            | F::SmallUnused
            | F::UnusedNowhere
            | F::ObjectUnknown
            | F::OrphanNowhere
            | F::HashNowhere
            | F::HeldNowhere
            | F::SnapshotUnknown
            | F::XattrWithoutInode
            | F::ExtentWithoutFile
            | F::ExtentInlineAndKeyed => Self::NothingLeaks,
            _ => Self::RecordsFitTogether,
        }
    }

    /// The invariant that a panic's message names; what names none is a difference.
    pub fn named(message: &str) -> String {
        let name = message.strip_prefix("broken: ").and_then(|rest| rest.split(':').next());
        name.map_or_else(|| format!("{:?}", Self::BehavesAsTheReference), str::to_owned)
    }
}

/// Ends the run: `invariant` does not hold.
pub fn broken(invariant: Invariant, why: impl fmt::Display) -> ! {
    panic!("broken: {invariant:?}: {why}")
}

/// Fails at the first finding, named. Objects that an earlier life wrote and no record names may
/// stay until the next one has looked for them.
pub fn hold(when: &str, report: &Report, settled: bool) {
    let counts = |kind| settled || kind != Finding::ObjectUnknown;
    if let Some(finding) = report.findings.iter().find(|finding| counts(finding.kind)) {
        broken(Invariant::of(finding.kind), format_args!("{when}: {report}"));
    }
}
