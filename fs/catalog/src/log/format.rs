//! The bytes of a log: the head's content and snapshots. Pure.
//!
//! Both are lines of JSON. The first says what follows; a commit is one line of the head, an
//! operation one line of a snapshot.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::State;

pub(super) const VERSION: u32 = 1;
/// Ids of commits that went into a snapshot and are still told, for whoever lost an answer.
pub(super) const RECENT_MAX: usize = 32;
/// A head's commits are folded into a snapshot beyond this, and beyond a share of the snapshot.
const TAIL_BYTES_MIN: usize = 32 << 10;
const TAIL_BYTES_MAX: usize = 128 << 10;
/// A state that is written in so little stays in the head.
pub(super) const INLINE_STATE_BYTES: usize = 16 << 10;

/// First line of a head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct First {
    pub(super) version: u32,
    /// Number of the last commit.
    pub(super) seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base: Option<Base>,
    /// The last commits that are in the snapshot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) recent: Vec<String>,
}

/// A snapshot, as its head names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    /// Last part of its path.
    pub(super) name: String,
    /// It has all commits up to this one.
    pub(super) seq: u64,
    pub(super) bytes: u64,
}

/// A line of a head.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Commit<O> {
    pub(super) id: String,
    pub(super) seq: u64,
    pub(super) ops: Vec<O>,
}

/// First line of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SnapshotFirst {
    pub(super) version: u32,
    /// Path of the head that it belongs to.
    pub(super) of: String,
    pub(super) seq: u64,
}

/// A commit as its head has it.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) id: Arc<str>,
    pub(super) text: Arc<str>,
}

/// A head's content, with its commits still as text.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) first: First,
    pub(super) tail: Vec<Line>,
}

impl Content {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = json(&self.first).into_bytes();
        for line in &self.tail {
            out.push(b'\n');
            out.extend_from_slice(line.text.as_bytes());
        }
        out
    }

    pub(super) fn tail_bytes(&self) -> usize {
        self.tail.iter().map(|line| line.text.len() + 1).sum()
    }

    /// Whether the commits should be folded into a snapshot before `more` bytes come to them.
    pub(super) fn is_full(&self, more: usize) -> bool {
        let base = self.first.base.as_ref().map_or(0, |base| base.bytes);
        let share = usize::try_from(base / 8).unwrap_or(usize::MAX);
        self.tail_bytes() + more > share.clamp(TAIL_BYTES_MIN, TAIL_BYTES_MAX)
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.tail.iter().any(|line| &*line.id == id)
            || self.first.recent.iter().any(|recent| recent == id)
    }

    /// Ids that a head with a new snapshot still tells.
    pub(super) fn recent_after(&self) -> Vec<String> {
        let tail = self.tail.iter().map(|line| line.id.to_string());
        let all: Vec<String> = self.first.recent.iter().cloned().chain(tail).collect();
        all[all.len().saturating_sub(RECENT_MAX)..].to_vec()
    }
}

/// A head's content with the operations of its commits, each with the commit's number.
pub(super) struct Parsed<O> {
    pub(super) content: Content,
    pub(super) commits: Vec<(u64, Vec<O>)>,
}

pub(super) fn decode<S: State>(bytes: &[u8]) -> Result<Parsed<S::Op>, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let mut lines = text.split('\n');
    let first: First = parse(lines.next().unwrap_or_default())?;
    if first.version != VERSION {
        return Err(format!("version {} is not known here", first.version));
    }
    let (mut tail, mut commits) = (Vec::new(), Vec::new());
    for line in lines {
        let commit: Commit<S::Op> = parse(line)?;
        tail.push(Line { id: commit.id.into(), text: line.into() });
        commits.push((commit.seq, commit.ops));
    }
    Ok(Parsed { content: Content { first, tail }, commits })
}

/// The snapshot that a head's content names.
pub(super) fn base_name(bytes: &[u8]) -> Result<Option<String>, String> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let first: First = serde_json::from_slice(&bytes[..end]).map_err(|e| e.to_string())?;
    Ok(first.base.map(|base| base.name))
}

pub(super) fn commit_line<O: Serialize>(id: &str, seq: u64, ops: &[O]) -> Line {
    #[derive(Serialize)]
    struct Borrowed<'a, O> {
        id: &'a str,
        seq: u64,
        ops: &'a [O],
    }
    let text = json(&Borrowed { id, seq, ops });
    Line { id: id.into(), text: text.into() }
}

/// A snapshot, without the seal.
pub(super) fn encode_snapshot<S: State>(state: &S, of: &str, seq: u64) -> Vec<u8> {
    let first = SnapshotFirst { version: VERSION, of: of.to_owned(), seq };
    let mut out = json(&first).into_bytes();
    for op in state.snapshot() {
        out.push(b'\n');
        out.extend_from_slice(json(&op).as_bytes());
    }
    out
}

pub(super) fn decode_snapshot<S: State>(bytes: &Bytes) -> Result<(SnapshotFirst, S), String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let mut lines = text.split('\n');
    let first = snapshot_first(lines.next().unwrap_or_default())?;
    let mut state = S::default();
    for line in lines {
        state.apply(&parse(line)?);
    }
    Ok((first, state))
}

/// What a snapshot says of itself.
pub(super) fn snapshot_first(line: &str) -> Result<SnapshotFirst, String> {
    let first: SnapshotFirst = parse(line)?;
    if first.version != VERSION {
        return Err(format!("version {} is not known here", first.version));
    }
    Ok(first)
}

fn parse<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|e| e.to_string())
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("these types have text keys alone")
}
