//! The vocabulary of faults: what a plan consists of, and which rule an operation meets.

use crate::error::Kind;
use object_store::path::Path;
use std::time::Duration;

/// The kinds of operation that are told apart, by counters and rules alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OpKind {
    /// A put that overwrites.
    Put,
    /// A put that must not find the object.
    Create,
    /// A put that must find a given version.
    Update,
    Get,
    /// A get of metadata alone.
    Head,
    List,
    Delete,
    Copy,
    /// The begin of a multipart upload.
    Multipart,
    Part,
    /// The end of a multipart upload, which makes the object visible.
    Complete,
}

impl OpKind {
    pub const ALL: [OpKind; 11] = [
        OpKind::Put,
        OpKind::Create,
        OpKind::Update,
        OpKind::Get,
        OpKind::Head,
        OpKind::List,
        OpKind::Delete,
        OpKind::Copy,
        OpKind::Multipart,
        OpKind::Part,
        OpKind::Complete,
    ];
    /// The kinds that change what is stored.
    pub const WRITES: [OpKind; 7] = [
        OpKind::Put,
        OpKind::Create,
        OpKind::Update,
        OpKind::Delete,
        OpKind::Copy,
        OpKind::Part,
        OpKind::Complete,
    ];

    /// The kind's place in [`OpKind::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    pub fn name(self) -> &'static str {
        match self {
            OpKind::Put => "put",
            OpKind::Create => "create",
            OpKind::Update => "update",
            OpKind::Get => "get",
            OpKind::Head => "head",
            OpKind::List => "list",
            OpKind::Delete => "delete",
            OpKind::Copy => "copy",
            OpKind::Multipart => "multipart",
            OpKind::Part => "part",
            OpKind::Complete => "complete",
        }
    }
}

/// Which half of the operation the crash leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The operation did not happen.
    Before,
    /// The operation happened; its answer was lost.
    After,
    /// Of a put only the first half of the data was stored, as a medium that is not atomic does.
    /// Other operations: as `Before`.
    Half,
}

/// What happens to the operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Fails with an error of this kind; nothing happened.
    Fail(Kind),
    /// Happens, but the caller gets an error of this kind.
    LoseAnswer(Kind),
    /// Waits on the runtime's clock, then happens.
    Delay(Duration),
    /// A get gives only the first `keep` bytes of what was asked for; a put stores only the first
    /// `keep` bytes and reports success. Other operations just happen.
    Truncate { keep: u64 },
    /// A get gives its bytes with one bit changed, at `bit` modulo the length.
    FlipBit { bit: u64 },
    /// Waits until `release`, then happens.
    Hang,
    /// See [`Crash`]; every later operation fails.
    Crash(Crash),
}

/// One rule: the operations it is for, and what they meet.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Empty: every kind.
    pub kinds: Vec<OpKind>,
    /// Only objects whose path starts with this text; empty: every object.
    pub prefix: String,
    /// How many matching operations pass before the rule begins to act.
    pub skip: u64,
    /// How often it acts at most; `u64::MAX` for always.
    pub times: u64,
    /// The chance that it acts on a matching operation, 0 to 1.
    pub probability: f64,
    pub action: Action,
}

impl Fault {
    /// A rule that acts once, on the next operation of any kind.
    pub fn new(action: Action) -> Self {
        Fault {
            kinds: Vec::new(),
            prefix: String::new(),
            skip: 0,
            times: 1,
            probability: 1.0,
            action,
        }
    }

    pub fn on(mut self, kinds: impl IntoIterator<Item = OpKind>) -> Self {
        self.kinds = kinds.into_iter().collect();
        self
    }

    pub fn under(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Lets `skip` matching operations pass first.
    pub fn after(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    pub(super) fn matches(&self, kind: OpKind, path: &Path) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && path.as_ref().starts_with(&self.prefix)
    }
}

/// Rules in order; the first one that acts decides. The empty plan disturbs nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultPlan {
    /// For rules with a probability below 1.
    pub seed: u64,
    pub faults: Vec<Fault>,
}

impl FaultPlan {
    pub fn none() -> Self {
        FaultPlan::default()
    }

    pub fn new(seed: u64, faults: impl IntoIterator<Item = Fault>) -> Self {
        FaultPlan { seed, faults: faults.into_iter().collect() }
    }

    /// Crashes at the write number `nth`, counted from 0.
    pub fn crash_at_write(nth: u64, crash: Crash) -> Self {
        let fault = Fault::new(Action::Crash(crash)).on(OpKind::WRITES).after(nth);
        FaultPlan::new(0, [fault])
    }
}

impl From<Fault> for FaultPlan {
    fn from(fault: Fault) -> Self {
        FaultPlan::new(0, [fault])
    }
}
