//! Deliberate bugs, to see that the tests would find real ones like them.
//!
//! Without the feature `mutants`, which only tests enable, [`is`] is constantly false and every
//! place that asks compiles to nothing. With it nothing changes either, until a test switches one
//! bug on, for its own thread and by a call: nothing outside of the process can.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mutant {
    /// A commit is acknowledged before it is durable.
    SkipTableSync,
    /// Chunks enter a transaction before their segment is in the store.
    CommitBeforeData,
    /// A file that lost its last name while it is open is not noted as an orphan.
    ForgetOrphan,
    /// A clone takes nothing of the quota.
    MiscountClone,
    /// A clone's reference to a chunk is not counted.
    ForgetReference,
    /// A reference that an overwrite ends is not counted.
    ForgetRelease,
    /// What was read is not compared with its hash.
    SkipChecksum,
    /// A rename over a file does not wait for its source's data.
    LoseRenameWait,
    /// A chunk that memory still refers to is freed.
    FreeHeldChunk,
    /// A segment's object goes before the transaction that emptied it is durable.
    DeleteSegmentEarly,
    /// The cleaner notes another place for a chunk than where it put it.
    MisplaceMovedChunk,
    /// Size and charge of a file commit before its data.
    SizeBeforeData,
    /// A hard link does not count.
    MiscountLink,
    /// A rename leaves the entry that it replaces.
    KeepReplacedEntry,
    /// fsync waits for data only, not for names.
    FsyncSkipsNames,
    /// A write by somebody without the right to keep it leaves set-uid.
    KeepSetUid,
    /// Memory drops an inode that differs from the tables.
    EvictChanged,
    /// Names that were read ahead stay for later when they come into memory.
    KeepParkedNames,
    /// The block that a file keeps to finish it later outlives an overwrite.
    KeepStaleTail,
    /// What a commit says of counters is one inode short.
    MiscountInodes,
    /// A chunk without references that memory held is forgotten by a crash.
    ForgetUnused,
    /// A chunk that only a snapshot refers to is freed.
    FreeKeptChunk,
    /// A chunk that only a snapshot holds is not listed, so that its removal does not find it.
    ForgetHeld,
    /// A snapshot is made without the data that files still have in memory.
    SnapshotWithoutSync,
    /// A snapshot that is removed frees nothing.
    KeepWhatWasHeld,
}

impl Mutant {
    /// All of them.
    #[cfg(feature = "mutants")]
    pub const ALL: [Mutant; 25] = [
        Self::SkipTableSync,
        Self::CommitBeforeData,
        Self::ForgetOrphan,
        Self::MiscountClone,
        Self::ForgetReference,
        Self::ForgetRelease,
        Self::SkipChecksum,
        Self::LoseRenameWait,
        Self::FreeHeldChunk,
        Self::DeleteSegmentEarly,
        Self::MisplaceMovedChunk,
        Self::SizeBeforeData,
        Self::MiscountLink,
        Self::KeepReplacedEntry,
        Self::FsyncSkipsNames,
        Self::KeepSetUid,
        Self::EvictChanged,
        Self::KeepParkedNames,
        Self::KeepStaleTail,
        Self::MiscountInodes,
        Self::ForgetUnused,
        Self::FreeKeptChunk,
        Self::ForgetHeld,
        Self::SnapshotWithoutSync,
        Self::KeepWhatWasHeld,
    ];
}

#[cfg(feature = "mutants")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Switches a bug on for this thread, or all of them off.
#[cfg(feature = "mutants")]
pub fn activate(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}

/// True while a test has this bug switched on.
#[cfg(feature = "mutants")]
pub(super) fn is(mutant: Mutant) -> bool {
    ACTIVE.get() == Some(mutant)
}

/// No bugs outside of tests.
#[cfg(not(feature = "mutants"))]
pub(super) const fn is(_: Mutant) -> bool {
    false
}
