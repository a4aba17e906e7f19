//! What a check can find, by name: the invariants of a home, how bad it is when one does not
//! hold, and what a repair does about it.
//!
//! The names are stable: scripts rely on them. A new invariant gets a new name.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Names or contents of files are hurt.
    Damage,
    /// Space is lost, nothing else.
    Leak,
    /// A number differs from what it counts.
    Count,
}

macro_rules! invariants {
    ($($(#[$doc:meta])* $name:ident, $severity:ident, $text:literal, $repair:expr;)*) => {
        /// What does not hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Invariant {
            $(#[doc = $text] $(#[$doc])* $name,)*
        }

        impl Invariant {
            /// How bad it is.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// In words.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What a repair does about it; `None`: nothing is safe.
            #[must_use]
            pub fn repair(self) -> Option<&'static str> {
                match self { $(Self::$name => $repair,)* }
            }
        }
    };
}

invariants! {
    RecordUnreadable, Damage, "a record that this release cannot read", None;
    RootMissing, Damage, "the root directory is missing", None;
    EntryNowhere, Damage, "an entry whose inode is missing", Some("the entry is removed");
    EntryWithoutDirectory, Damage, "entries of a directory that is missing",
        Some("they are removed; their inodes go to lost+found");
    EntryTwice, Damage, "two entries for one name",
        Some("the first stays; the inode of the other goes to lost+found");
    EntryMisplaced, Damage, "an entry under a hash that is not its name's",
        Some("the entry moves to where it is looked for");
    EntryKind, Damage, "an entry says another kind than its inode",
        Some("the entry takes the kind of the inode");
    InodeLost, Damage, "an inode without an entry that is not an orphan",
        Some("it is linked into lost+found");
    OrphanNamed, Damage, "an inode with a name is listed among the orphans",
        Some("it is taken off the list");
    OrphanNowhere, Leak, "an orphan whose inode is missing", Some("it is taken off the list");
    DirectoryCircle, Damage, "directories that contain each other",
        Some("the circle is cut; one of them goes to lost+found");
    DirectoryTwice, Damage, "a directory with two names",
        Some("the name in the directory above that it knows stays");
    ParentWrong, Count, "a directory that names another directory above", Some("it is set");
    LinkCount, Count, "a number of links that is not the number of names",
        Some("it is counted again");
    EntryCount, Count, "a directory that counts other entries than it has",
        Some("they are counted again");
    ExtentOverlap, Damage, "extents that overlap", None;
    ExtentWindow, Damage, "an extent that crosses a window", None;
    ExtentLimit, Damage, "an extent that is empty or behind the largest offset", None;
    ExtentBehindEnd, Damage, "data behind the end of its file", None;
    ExtentInlineAndKeyed, Leak, "extents beside those that the inode holds itself",
        Some("the ones beside are removed");
    ExtentWithoutFile, Leak, "extents of a file that is missing", Some("they are removed");
    ExtentNowhere, Damage, "an extent that names a missing chunk or small value", None;
    ExtentPastSource, Damage, "an extent that reaches past the end of its chunk", None;
    ChargedBytes, Count, "charged bytes that are not those of the extents",
        Some("they are counted again");
    XattrCount, Count, "extended attributes other than the inode counts",
        Some("they are counted again");
    XattrWithoutInode, Leak, "extended attributes of a missing inode", Some("they are removed");
    ChunkReferences, Count, "a chunk with other references than it counts",
        Some("they are counted again");
    ChunkUnused, Leak, "a chunk that nothing refers to", Some("it is freed");
    UnusedNowhere, Leak, "a note of an unused chunk that is used or missing",
        Some("it is removed");
    SmallReferences, Count, "a small value with other references than it counts",
        Some("they are counted again");
    SmallUnused, Leak, "a small value that nothing refers to", Some("it is freed");
    HashNowhere, Leak, "a hash that leads to no chunk of that content", Some("it is removed");
    SegmentLive, Count, "a segment with other living chunks than it counts",
        Some("they are counted again");
    SegmentRecordMissing, Count, "a segment with chunks and without a record",
        Some("the record is written again");
    SegmentMissing, Damage, "a segment whose object is missing", None;
    SegmentShort, Damage, "a segment whose object is too short for its chunks", None;
    SegmentSize, Count, "a segment whose object has another size than its record says",
        Some("the record takes the size of the object");
    ChunkDamaged, Damage, "a chunk whose content does not have its hash", None;
    ObjectUnknown, Leak, "an object that no segment record knows", Some("it is deleted");
    HeldNowhere, Leak, "a chunk is listed as held by snapshots that is not",
        Some("it is taken off the list");
    HeldUnlisted, Count, "a chunk that only snapshots hold is not listed as such",
        Some("it is listed");
    SnapshotMissing, Damage, "a snapshot whose tables are missing or damaged",
        Some("the snapshot is removed");
    SnapshotUnknown, Leak, "tables that are kept for no snapshot", Some("they are given up");
    SnapshotUnreadable, Damage, "a record of a snapshot that cannot be read", None;
    SnapshotNowhere, Damage, "a snapshot refers to a missing chunk", None;
    CounterHeld, Count, "the bytes that only snapshots hold", Some("they are counted again");
    CounterBytes, Count, "the home's charged bytes", Some("they are counted again");
    CounterInodes, Count, "the home's number of inodes", Some("they are counted again");
    CounterNextInode, Count, "the next inode number was given already", Some("it is raised");
    CounterNextSmall, Count, "the next number of a small value was given already",
        Some("it is raised");
}

/// One thing that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What does not hold.
    pub kind: Invariant,
    /// How bad it is.
    pub severity: Severity,
    /// The record or object: `inode #5`, `chunk …`, `segment …`.
    pub object: String,
    /// What was found there.
    pub detail: String,
    /// Files and directories that are hurt, by their paths in the home.
    pub paths: Vec<String>,
    /// So many more than in `paths`.
    pub more_paths: u64,
    /// What a repair does about it, if anything.
    pub repair: Option<&'static str>,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let severity = match self.severity {
            Severity::Damage => "DAMAGE",
            Severity::Leak => "leak",
            Severity::Count => "count",
        };
        write!(f, "{severity}: {}: {}", self.object, self.kind.text())?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        for path in &self.paths {
            write!(f, "\n    {path}")?;
        }
        if self.more_paths > 0 {
            write!(f, "\n    and {} more", self.more_paths)?;
        }
        write!(f, "\n    repair: {}", self.repair.unwrap_or("nothing is safe; restore the file"))
    }
}
