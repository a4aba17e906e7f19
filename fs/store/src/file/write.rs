//! Puts, copies and deletes: everything that changes what is stored. All of it blocks.
//!
//! Small new objects go by way of the journal (`journal`). For all others the order is the same:
//! a temporary file gets data and footer, its data is synced, it is given its name in one step,
//! the directory is synced, and only then is the put acknowledged. So a crash leaves the old
//! object, the new one or none, whole in each case.

use super::footer::{self, Tag};
use super::journal;
use super::names;
use super::read::{self, Opened};
use super::root::{Root, Temporary};
use super::{Class, STORE};
use crate::error::Detail;
use bytes::Bytes;
use object_store::path::Path as Location;
use object_store::{
    Attributes, CopyMode, Error, Extensions, PutMode, PutPayload, PutResult, Result,
};
use rustix::fs::{CWD, RenameFlags};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};

/// How often a directory may vanish under a put because somebody removed its last other name.
const DIRECTORY_RACES_MAX: u32 = 100;

/// A write under way: the store, who asks, and what for.
pub(super) struct Writer<'a> {
    pub(super) root: &'a Root,
    pub(super) class: Class,
    pub(super) location: &'a Location,
    /// The name need not be durable when the put is acknowledged.
    pub(super) name_later: bool,
    /// A large object's data need not be in the page cache afterwards.
    pub(super) direct: bool,
}

impl Writer<'_> {
    pub(super) fn put(
        &self,
        payload: &PutPayload,
        mode: &PutMode,
        attributes: &Attributes,
    ) -> Result<PutResult> {
        let length = payload.content_length() as u64;
        self.with_reserve(length, || {
            if matches!(mode, PutMode::Create)
                && length <= journal::OBJECT_BYTES_MAX as u64
                && let Some(done) = self.put_small(payload, attributes)?
            {
                return Ok(done);
            }
            let mut temporary = self.root.temporary().map_err(|e| self.error("put", e))?;
            let written = match self.direct {
                true => self.root.direct.write(&mut temporary.file, payload),
                false => write_payload(&mut temporary.file, payload),
            };
            written.map_err(|e| self.error("put", e))?;
            self.finish(temporary, length, mode, attributes)
        })
    }

    /// Ends the file of a put with its footer and makes it the object.
    pub(super) fn finish(
        &self,
        mut temporary: Temporary,
        length: u64,
        mode: &PutMode,
        attributes: &Attributes,
    ) -> Result<PutResult> {
        let tag = self.root.next_tag();
        let encoded = self.encode_footer(attributes, length, tag)?;
        temporary
            .file
            .write_all(&encoded)
            .and_then(|()| temporary.file.sync_data())
            .map_err(|e| self.error("put", e))?;
        let directory = self.publish(temporary, mode)?;
        if !self.name_later {
            self.root.sync_names(&directory).map_err(|e| self.error("put", e))?;
        }
        Ok(put_result(tag))
    }

    /// Creates a small object by way of the journal. None: it has no room, or the directory is
    /// not known to be durable, which the long way makes it.
    fn put_small(
        &self,
        payload: &PutPayload,
        attributes: &Attributes,
    ) -> Result<Option<PutResult>> {
        let name = names::object_file(self.location)?;
        let target = self.root.path().join(&name);
        if !target.parent().is_some_and(|directory| self.root.is_durable(directory)) {
            return Ok(None);
        }
        if target.exists() {
            let path = self.location.to_string();
            return Err(Error::AlreadyExists { path, source: "it exists".into() });
        }
        let tag = self.root.next_tag();
        let end = self.encode_footer(attributes, payload.content_length() as u64, tag)?;
        let content: Vec<&[u8]> =
            payload.iter().map(|chunk| &chunk[..]).chain([&end[..]]).collect();
        let Some(written) = self.root.journal.write(&name, &content) else {
            return Ok(None);
        };
        let made = self.make_unsynced(payload, &end);
        if let Err(error) = made {
            // What was refused must not come into being after a crash.
            let revoked = self.root.journal.revoke(&written);
            return Err(revoked.map_err(|e| self.error("put", e)).err().unwrap_or(error));
        }
        Ok(Some(put_result(tag)))
    }

    fn make_unsynced(&self, payload: &PutPayload, end: &[u8]) -> Result<()> {
        let mut temporary = self.root.temporary_at_once().map_err(|e| self.error("put", e))?;
        let mut payload = payload.iter().cloned().collect::<Vec<_>>();
        payload.push(Bytes::copy_from_slice(end));
        write_payload(&mut temporary.file, &payload.into_iter().collect())
            .map_err(|e| self.error("put", e))?;
        self.publish(temporary, &PutMode::Create).map(drop)
    }

    fn encode_footer(&self, attributes: &Attributes, length: u64, tag: Tag) -> Result<Vec<u8>> {
        crate::attrs::encode(attributes)
            .and_then(|attributes| footer::encode(&attributes, length, tag))
            .ok_or_else(|| self.invalid("put", "its attributes are not storable"))
    }

    pub(super) fn copy(&self, from: &Location, mode: CopyMode) -> Result<PutResult> {
        let source = self.root.path().join(names::object_file(from)?);
        let Opened { file, footer, attributes, .. } = read::open(from, &source)?;
        let mode = match mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        self.with_reserve(footer.data_bytes, || {
            let mut temporary = self.root.temporary().map_err(|e| self.error("copy", e))?;
            let mut data = io::Read::take(&file, footer.data_bytes);
            io::Seek::rewind(&mut &file)
                .and_then(|()| io::copy(&mut data, &mut temporary.file))
                .map_err(|e| self.error("copy", e))?;
            self.finish(temporary, footer.data_bytes, &mode, &attributes)
        })
    }

    /// Gives the temporary file the object's name, if the mode allows it; gives the directory
    /// whose names are to be synced.
    fn publish(&self, mut temporary: Temporary, mode: &PutMode) -> Result<PathBuf> {
        let target = self.root.path().join(names::object_file(self.location)?);
        let directory = target.parent().expect("an object's file lies below the root");
        let mut races = 0;
        loop {
            match self.rename(&temporary.path, &target, mode)? {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    races += 1;
                    if races > DIRECTORY_RACES_MAX {
                        return Err(self.error("put", error));
                    }
                    self.root.make_directory(directory).or_else(|error| {
                        // Somebody removed the directory above at that moment: once more.
                        let gone = error.kind() == io::ErrorKind::NotFound;
                        if gone { Ok(()) } else { Err(self.error("put", error)) }
                    })?;
                }
                Err(error) => return Err(self.error("put", error)),
            }
        }
        temporary.published = true;
        Ok(directory.to_owned())
    }

    /// The outer error is the put's answer, the inner one the rename's.
    fn rename(&self, from: &Path, to: &Path, mode: &PutMode) -> Result<io::Result<()>> {
        match mode {
            PutMode::Create => match rename_new(from, to) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let path = self.location.to_string();
                    Err(Error::AlreadyExists { path, source: error.into() })
                }
                other => Ok(other),
            },
            PutMode::Overwrite => {
                let _locked = self.root.lock(to).map_err(|e| self.error("put", e))?;
                Ok(fs::rename(from, to))
            }
            PutMode::Update(version) => {
                let _locked = self.root.lock(to).map_err(|e| self.error("put", e))?;
                let now = match read::open(self.location, to) {
                    Ok(opened) => opened.footer.tag.e_tag(),
                    Err(Error::NotFound { .. }) => "nothing".to_owned(),
                    Err(error) => return Err(error),
                };
                if version.e_tag.as_ref() != Some(&now) {
                    let wanted = version.e_tag.as_deref().unwrap_or("no version");
                    let source = format!("{wanted} was expected, {now} is there").into();
                    return Err(Error::Precondition { path: self.location.to_string(), source });
                }
                Ok(fs::rename(from, to))
            }
        }
    }

    /// Runs a put; metadata that finds the disk full takes from the reserve and runs again.
    fn with_reserve<T>(&self, length: u64, put: impl Fn() -> Result<T>) -> Result<T> {
        loop {
            match put() {
                Err(error)
                    if self.class == Class::Meta
                        && crate::error::kind(&error) == crate::error::Kind::NoSpace
                        && self.root.reserve.take(length) => {}
                other => return other,
            }
        }
    }

    fn error(&self, operation: &'static str, error: io::Error) -> Error {
        io_error(operation, self.location, error)
    }

    fn invalid(&self, operation: &'static str, why: &str) -> Error {
        let object = self.location.to_string();
        Detail::Invalid { operation, object, why: why.to_owned() }.at(STORE)
    }
}

/// Removes objects; each gets its own answer, their directories are synced once for all.
pub(super) fn delete(root: &Root, locations: Vec<Location>) -> Vec<Result<Location>> {
    let mut directories: BTreeSet<PathBuf> = BTreeSet::new();
    let mut removed: Vec<PathBuf> = Vec::new();
    let mut answers: Vec<Result<Location>> = Vec::with_capacity(locations.len());
    for location in locations {
        let done = names::object_file(&location).and_then(|name| {
            let file = root.path().join(&name);
            let locked = root.lock(&file).map_err(|e| io_error("delete", &location, e))?;
            fs::remove_file(&file).map_err(|e| io_error("delete", &location, e))?;
            drop(locked);
            directories.extend(file.parent().map(Path::to_owned));
            removed.push(name);
            Ok(())
        });
        answers.push(done.map(|()| location));
    }
    let mut fail = |error: io::Error| {
        let why = error.to_string();
        for answer in answers.iter_mut() {
            if let Ok(location) = answer {
                let error = io::Error::new(error.kind(), why.clone());
                *answer = Err(io_error("delete", location, error));
            }
        }
    };
    for directory in &directories {
        root.sync_names(directory).unwrap_or_else(&mut fail);
        root.prune(directory);
    }
    // Only now: what is in no journal any more must be gone from its directory.
    root.journal.removed(&removed).unwrap_or_else(&mut fail);
    root.reserve.refill();
    answers
}

pub(super) fn io_error(operation: &'static str, location: &Location, error: io::Error) -> Error {
    let path = location.to_string();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::NotFound { path, source: error.into() }
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Detail::NoSpace { medium: "the directory of the store".to_owned(), object: path }
                .at(STORE)
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Error::PermissionDenied { path, source: error.into() }
        }
        _ => Detail::Unavailable { operation, object: path, why: error.to_string() }.at(STORE),
    }
}

fn put_result(tag: Tag) -> PutResult {
    PutResult { e_tag: Some(tag.e_tag()), version: None, extensions: Extensions::new() }
}

fn write_payload(file: &mut fs::File, payload: &PutPayload) -> io::Result<()> {
    write_slices(file, payload.iter().map(|chunk| IoSlice::new(chunk)).collect())
}

/// Writes slices one behind the other, as few calls as there can be.
pub(super) fn write_slices(file: &mut fs::File, mut slices: Vec<IoSlice<'_>>) -> io::Result<()> {
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Renames unless the name is taken, in one step.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system without the flag: a hard link is refused for a taken name as well.
        Err(rustix::io::Errno::INVAL) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        other => Ok(other?),
    }
}
