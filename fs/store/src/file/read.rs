//! Gets and listings. All of it blocks.

use super::STORE;
use super::footer::{self, FOOTER_BYTES, Footer};
use super::names::{self, OWN};
use super::root::Root;
use super::write::io_error;
use crate::error::Detail;
use bytes::Bytes;
use object_store::path::Path as Location;
use object_store::{Attributes, Error, GetOptions, ListResult, ObjectMeta, Result};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How much of a file's end is read at once: footer and usual attributes.
const TAIL_BYTES: u64 = 512;
/// A file up to this length is read whole with its footer: one system call instead of two.
const WHOLE_BYTES_MAX: u64 = 32 << 10;

/// An object's file with its verified footer.
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) footer: Footer,
    pub(super) attributes: Attributes,
    modified: SystemTime,
    /// The whole data, if it came with the footer.
    data: Option<Bytes>,
}

/// An answer to a get whose data, if it is long, is still in the file.
pub(super) struct Got {
    pub(super) meta: ObjectMeta,
    pub(super) attributes: Attributes,
    pub(super) range: Range<u64>,
    pub(super) opened: Opened,
}

pub(super) fn open(location: &Location, path: &Path) -> Result<Opened> {
    let io = |error| io_error("get", location, error);
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    let length = metadata.len();
    let corrupt = |why: &str| {
        let object = format!("{location} ({})", path.display());
        Detail::Corrupt { object, why: why.to_owned() }.at(STORE)
    };
    let whole = length <= WHOLE_BYTES_MAX;
    let want = if whole { length } else { TAIL_BYTES };
    let mut tail = read_at(&file, length - want, want).map_err(io)?;
    let footer = footer::parse(&tail, length).map_err(corrupt)?;
    let needed = u64::from(footer.attributes_bytes) + FOOTER_BYTES as u64;
    if needed > want {
        tail = read_at(&file, length - needed, needed).map_err(io)?;
    }
    let attributes = footer::verify(&tail, &footer).map_err(corrupt)?;
    let data = whole.then(|| tail.slice(..footer.data_bytes as usize));
    let modified = metadata.modified().map_err(io)?;
    Ok(Opened { file, footer, attributes, modified, data })
}

impl Opened {
    fn meta(&self, location: &Location) -> ObjectMeta {
        ObjectMeta {
            location: location.clone(),
            last_modified: self.modified.into(),
            size: self.footer.data_bytes,
            e_tag: Some(self.footer.tag.e_tag()),
            version: None,
        }
    }

    /// A piece of the data; the range lies within it.
    pub(super) fn read(&self, location: &Location, range: Range<u64>) -> Result<Bytes> {
        if let Some(data) = &self.data {
            return Ok(data.slice(range.start as usize..range.end as usize));
        }
        read_at(&self.file, range.start, range.end - range.start)
            .map_err(|error| io_error("get", location, error))
    }
}

pub(super) fn get(root: &Root, location: &Location, options: &GetOptions) -> Result<Got> {
    let path = root.path().join(names::object_file(location)?);
    let opened = open(location, &path)?;
    let meta = opened.meta(location);
    options.check_preconditions(&meta)?;
    let range = match &options.range {
        None => 0..meta.size,
        Some(range) => range.as_range(meta.size).map_err(|error| {
            let (object, why) = (location.to_string(), error.to_string());
            Detail::Invalid { operation: "get", object, why }.at(STORE)
        })?,
    };
    Ok(Got { meta, attributes: opened.attributes.clone(), range, opened })
}

pub(super) fn get_ranges(
    root: &Root,
    location: &Location,
    ranges: &[Range<u64>],
) -> Result<Vec<Bytes>> {
    let got = get(root, location, &GetOptions::default())?;
    let read = |range: &Range<u64>| {
        let range = object_store::GetRange::Bounded(range.clone());
        let range = range.as_range(got.meta.size).map_err(|error| {
            let (object, why) = (location.to_string(), error.to_string());
            Detail::Invalid { operation: "get", object, why }.at(STORE)
        })?;
        got.opened.read(location, range)
    };
    ranges.iter().map(read).collect()
}

/// Walks everything below a prefix, a bounded number of objects at a time.
pub(super) struct Walk {
    pending: Vec<(PathBuf, Location)>,
    open: Option<(fs::ReadDir, Location)>,
}

impl Walk {
    pub(super) fn below(root: &Root, prefix: &Location) -> Result<Walk> {
        let directory = root.path().join(names::prefix_directory(prefix)?);
        Ok(Walk { pending: vec![(directory, prefix.clone())], open: None })
    }

    /// The next objects; an empty answer is the end.
    pub(super) fn next(&mut self, root: &Root, max: usize) -> Result<Vec<ObjectMeta>> {
        let mut found = Vec::new();
        while found.len() < max {
            let Some((entries, above)) = &mut self.open else {
                let Some((directory, above)) = self.pending.pop() else {
                    break;
                };
                self.open = read_directory(&above, &directory)?.map(|entries| (entries, above));
                continue;
            };
            let Some(entry) = entries.next() else {
                self.open = None;
                continue;
            };
            let entry = entry.map_err(|error| io_error("list", above, error))?;
            match classify(root, above, &entry)? {
                Entry::Object(location) => found.extend(meta_of(&location, &entry.path())?),
                Entry::Directory(location) => self.pending.push((entry.path(), location)),
                Entry::Other => {}
            }
        }
        Ok(found)
    }
}

pub(super) fn list_with_delimiter(root: &Root, prefix: &Location) -> Result<ListResult> {
    let directory = root.path().join(names::prefix_directory(prefix)?);
    let (mut objects, mut common_prefixes) = (Vec::new(), Vec::new());
    let entries = read_directory(prefix, &directory)?;
    for entry in entries.into_iter().flatten() {
        let entry = entry.map_err(|error| io_error("list", prefix, error))?;
        match classify(root, prefix, &entry)? {
            Entry::Object(location) => objects.extend(meta_of(&location, &entry.path())?),
            // An empty directory, left by a crash or about to get its first object, is nothing.
            Entry::Directory(location) => {
                if !Walk::below(root, &location)?.next(root, 1)?.is_empty() {
                    common_prefixes.push(location);
                }
            }
            Entry::Other => {}
        }
    }
    objects.sort_unstable_by(|a, b| a.location.cmp(&b.location));
    common_prefixes.sort_unstable();
    Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
}

enum Entry {
    Object(Location),
    Directory(Location),
    Other,
}

fn classify(root: &Root, above: &Location, entry: &fs::DirEntry) -> Result<Entry> {
    let name = entry.file_name();
    let Some(name) = name.to_str() else {
        return Ok(Entry::Other);
    };
    let kind = entry.file_type().map_err(|error| io_error("list", above, error))?;
    let join = |segment: &str| {
        let whole = if above.is_root() { segment.to_owned() } else { format!("{above}/{segment}") };
        Location::parse(whole).ok()
    };
    let own = name == OWN && entry.path().parent() == Some(root.path());
    let found = match names::segment_of_file(name) {
        Some(segment) if kind.is_file() => join(segment).map(Entry::Object),
        _ if kind.is_dir() && !own => join(names::segment_of_directory(name)).map(Entry::Directory),
        _ => None,
    };
    Ok(found.unwrap_or(Entry::Other))
}

fn meta_of(location: &Location, path: &Path) -> Result<Option<ObjectMeta>> {
    match open(location, path) {
        Ok(opened) => Ok(Some(opened.meta(location))),
        // Removed since the directory was read.
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_directory(above: &Location, directory: &Path) -> Result<Option<fs::ReadDir>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(Some(entries)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(io_error("list", above, error)),
    }
}

/// Exactly these bytes of a file; one that is shorter than it was is an error.
fn read_at(file: &File, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut data = Vec::with_capacity(length as usize);
    while (data.len() as u64) < length {
        let at = offset + data.len() as u64;
        let spare = rustix::buffer::spare_capacity(&mut data);
        let read = match rustix::io::pread(file, spare, at) {
            Err(rustix::io::Errno::INTR) => continue,
            read => read?,
        };
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    data.truncate(length as usize);
    Ok(Bytes::from(data))
}
