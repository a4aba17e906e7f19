//! The pass over names, and what names and inodes must add up to.

use std::collections::HashSet;

use super::check::{Check, LONG_ROWS};
use super::finding::Invariant;
use super::plan::{Fix, InodeFix};
use super::rows::{InodeRow, Mark};
use super::source::Cursor;
use crate::home::error::{Error, Result};
use crate::home::key;
use crate::home::record::{Bucket, EntryRecord, decode_bucket};
use crate::home::types::{Ino, Kind, Name};

impl Check<'_> {
    pub(super) async fn read_names(&mut self) -> Result<()> {
        let range = key::range_of_kind(key::BUCKET);
        let mut cursor = Cursor::new(self.source.view, range, LONG_ROWS * 4);
        while let Some((key, value)) = cursor.next().await? {
            self.step(1);
            let place = key::ino_of(&key).zip(key::bucket_hash_of(&key));
            let Some((dir, hash)) = place.filter(|_| key.len() == 13) else {
                let error = Error::corrupt("a key of a length that its kind does not have");
                self.unreadable(format_args!("key {:02x?}", &key[..]), &error, &[]);
                continue;
            };
            match decode_bucket(&value) {
                Ok(bucket) => self.read_bucket(dir, hash, &bucket).await?,
                Err(error) => self.unreadable(format_args!("names in {dir}"), &error, &[dir]),
            }
        }
        Ok(())
    }

    async fn read_bucket(&mut self, dir: Ino, hash: u64, bucket: &Bucket) -> Result<()> {
        let above = self.rows.inode(dir.0).map(|row| row.kind);
        match above {
            // A directory that cannot be read may have these names all the same.
            Some(None | Some(Kind::Dir)) => {}
            _ => {
                let names = format!("{} entries", bucket.len());
                self.find(
                    Invariant::EntryWithoutDirectory,
                    format_args!("inode {dir}"),
                    names,
                    &[],
                );
                self.fix(Fix::Delete(key::bucket(dir, hash)));
                return Ok(());
            }
        }
        let mut names: HashSet<&Name> = HashSet::new();
        let mut slots: HashSet<u8> = HashSet::new();
        for entry in bucket {
            self.totals.entries += 1;
            let twice = !names.insert(&entry.name);
            if !slots.insert(entry.slot) && !twice {
                let object = format!("entry {:?} in {dir}", entry.name);
                self.find(Invariant::EntryMisplaced, object, "its slot is taken", &[entry.ino]);
                let (name, slot) = (entry.name.clone(), entry.slot);
                self.fix(Fix::MoveEntry { dir, hash, name, slot });
            }
            self.read_entry(dir, hash, entry, twice).await?;
        }
        Ok(())
    }

    async fn read_entry(
        &mut self,
        dir: Ino,
        hash: u64,
        entry: &EntryRecord,
        twice: bool,
    ) -> Result<()> {
        let text = String::from_utf8_lossy(entry.name.as_bytes()).into_owned();
        let object = format!("entry {text:?} in {dir}");
        let (name, slot) = (entry.name.clone(), entry.slot);
        let remove = Fix::RemoveEntry { dir, hash, name: name.clone(), slot };
        let right = key::name_hash(entry.name.as_bytes());
        let twice = twice || (right != hash && self.has_name(dir, right, &name).await?);
        if twice {
            self.find(Invariant::EntryTwice, object, format!("also {}", entry.ino), &[dir]);
            self.fix(remove);
            return Ok(());
        }
        let Some(at) = self.rows.inode_at(entry.ino.0) else {
            let detail = format!("there is no inode {}", entry.ino);
            self.find_named(Invariant::EntryNowhere, object, detail, dir, &text);
            self.fix(remove);
            return Ok(());
        };
        let row = self.rows.inodes[at];
        if right != hash {
            let detail = format!("{hash:014x}, should be {right:014x}");
            self.find(Invariant::EntryMisplaced, &object, detail, &[entry.ino]);
            self.fix(Fix::MoveEntry { dir, hash, name, slot });
        }
        if let Some(kind) = row.kind.filter(|kind| *kind != entry.kind) {
            let detail = format!("{:?}, should be {kind:?}", entry.kind);
            self.find(Invariant::EntryKind, &object, detail, &[entry.ino]);
            self.fix(Fix::SetEntryKind { dir, hash, slot, kind });
        }
        if row.is_dir() && (row.links > 0 || row.ino == Ino::ROOT.0) {
            self.second_name(dir, &row, object, remove);
            return Ok(());
        }
        self.count_entry(dir, at);
        Ok(())
    }

    /// A directory is named a second time: the name that it knows itself stays.
    fn second_name(&mut self, dir: Ino, row: &InodeRow, object: String, remove: Fix) {
        let detail = format!("inode {} has a name in {} too", Ino(row.ino), Ino(row.seen_in));
        self.find(Invariant::DirectoryTwice, object, detail, &[Ino(row.ino)]);
        if row.parent == dir.0 && row.seen_in != dir.0 && row.ino != Ino::ROOT.0 {
            self.fix(Fix::RemoveEntriesOf { dir: Ino(row.seen_in), ino: Ino(row.ino) });
        } else {
            self.fix(remove);
        }
        if let Some(above) = self.rows.inode(dir.0) {
            above.found += 1;
            above.subdirs += 1;
        }
    }

    fn count_entry(&mut self, dir: Ino, at: usize) {
        let row = &mut self.rows.inodes[at];
        let is_dir = row.is_dir();
        row.links += 1;
        // A directory that does not contain itself makes the better path.
        if row.seen_in == 0 || row.seen_in == row.ino {
            row.seen_in = dir.0;
        }
        if let Some(above) = self.rows.inode(dir.0) {
            above.found += 1;
            above.subdirs += u32::from(is_dir);
        }
    }

    /// Is there an entry for `name` where it is looked for?
    async fn has_name(&self, dir: Ino, hash: u64, name: &Name) -> Result<bool> {
        let value = self.source.view.get(&key::bucket(dir, hash)).await?;
        let bucket = value.and_then(|value| decode_bucket(&value).ok());
        Ok(bucket.is_some_and(|bucket| bucket.iter().any(|e| e.name == *name)))
    }

    /// A finding about a name whose inode cannot say its path.
    fn find_named(
        &mut self,
        kind: Invariant,
        object: String,
        detail: String,
        dir: Ino,
        name: &str,
    ) {
        self.find(kind, object, format_args!("{name:?}: {detail}"), &[dir]);
    }

    /// Links, entries, directories above, circles and lost inodes.
    pub(super) fn compare_names(&mut self) {
        for at in 0..self.rows.inodes.len() {
            let row = self.rows.inodes[at];
            let ino = Ino(row.ino);
            let object = format!("inode {ino}");
            if row.is_lost() {
                let detail =
                    if row.is_dir() { format!("{} entries", row.found) } else { String::new() };
                self.find(Invariant::InodeLost, object, detail, &[ino]);
                self.fix(Fix::LinkLost(ino));
                continue;
            }
            if row.kind.is_none() {
                continue;
            }
            if row.is_dir() {
                self.compare_dir(&row);
            }
            let links = match (row.is_dir(), row.orphan && row.links == 0) {
                (_, true) => 0,
                (true, false) => 2 + row.subdirs,
                (false, false) => row.links,
            };
            if row.nlink != links && !(self.doubtful && row.nlink > links) {
                let detail = format!("{}, should be {links}", row.nlink);
                self.find(Invariant::LinkCount, object, detail, &[ino]);
                self.fix(Fix::SetInode(
                    ino,
                    InodeFix { nlink: Some(links), ..InodeFix::default() },
                ));
            }
            if row.orphan && row.links > 0 {
                let detail = format!("{} entries", row.links);
                self.find(Invariant::OrphanNamed, format_args!("inode {ino}"), detail, &[ino]);
                self.fix(Fix::Delete(key::orphan(ino)));
            }
        }
        self.find_circles();
    }

    fn compare_dir(&mut self, row: &InodeRow) {
        let ino = Ino(row.ino);
        let object = format!("inode {ino}");
        let above = if ino == Ino::ROOT { Ino::ROOT } else { Ino(row.seen_in) };
        if above.0 != 0 && row.parent != above.0 {
            let detail = format!("{}, should be {above}", Ino(row.parent));
            self.find(Invariant::ParentWrong, &object, detail, &[ino]);
            self.fix(Fix::SetInode(ino, InodeFix { parent: Some(above), ..InodeFix::default() }));
        }
        let found = u64::from(row.found);
        if row.entries != found && !(self.doubtful && row.entries > found) {
            let detail = format!("{}, should be {found}", row.entries);
            self.find(Invariant::EntryCount, &object, detail, &[ino]);
            self.fix(Fix::SetInode(ino, InodeFix { entries: Some(found), ..InodeFix::default() }));
        }
    }

    /// Follows every directory upwards; one that comes back to itself never reaches the root.
    fn find_circles(&mut self) {
        for start in 0..self.rows.inodes.len() {
            let mut way = Vec::new();
            let mut next = self.rows.inodes[start].is_dir().then_some(start);
            while let Some(at) = next {
                match self.rows.inodes[at].mark {
                    Mark::Done => break,
                    Mark::OnTheWay => {
                        self.circle(at);
                        break;
                    }
                    Mark::Unseen => {}
                }
                self.rows.inodes[at].mark = Mark::OnTheWay;
                way.push(at);
                next = match self.rows.inodes[at].seen_in {
                    0 => None,
                    above => self.rows.inode_at(above),
                };
            }
            for at in way {
                self.rows.inodes[at].mark = Mark::Done;
            }
        }
    }

    fn circle(&mut self, at: usize) {
        let row = self.rows.inodes[at];
        let (ino, dir) = (Ino(row.ino), Ino(row.seen_in));
        let object = format!("inode {ino}");
        let detail = format!("its name is in {dir}, which is in it");
        self.find(Invariant::DirectoryCircle, object, detail, &[ino]);
        self.fix(Fix::RemoveEntriesOf { dir, ino });
    }
}
