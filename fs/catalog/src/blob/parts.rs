//! Parts: the immutable objects that a blob's bytes lie in.
//!
//! A part's name has its upload's id, its place and eight random digits; no name is ever used
//! twice, so what was removed never comes back with other bytes.

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::names::UploadId;

/// All parts.
pub(crate) const PARTS: &str = "parts";

/// The parts of one upload, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parts {
    pub(crate) upload: UploadId,
    /// Place, random digits and length of each.
    pub(crate) list: Vec<(u32, String, u64)>,
}

impl Parts {
    pub(crate) fn new(upload: UploadId) -> Self {
        Parts { upload, list: Vec::new() }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.list.iter().map(|(_, _, bytes)| bytes).sum()
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = Path> + '_ {
        self.list.iter().map(|(place, random, _)| part_path(&self.upload, *place, random))
    }
}

pub(crate) fn part_path(upload: &UploadId, place: u32, random: &str) -> Path {
    Path::from_iter([PARTS, upload.as_str(), &format!("{place:08x}-{random}")])
}
