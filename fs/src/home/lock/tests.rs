//! Sentences first, then a comparison with a table of bytes that has nothing clever in it.

use proptest::prelude::*;

use super::*;
use crate::home::error::Error;
use LockKind::{Exclusive, Shared};
use LockSpace::{Flock, Posix};

const INO: Ino = Ino(9);

fn owner(n: u64) -> LockOwner {
    LockOwner { client: ClientId((n / 2) as u32), id: n }
}

fn lock(by: u64, kind: LockKind, start: u64, end: u64) -> Lock {
    Lock { owner: owner(by), kind, start, end, pid: 100 + by as u32 }
}

fn all(by: u64, kind: LockKind) -> Lock {
    lock(by, kind, 0, RANGE_END_MAX)
}

fn granted((result, woken): (Result<Progress>, Woken)) -> Woken {
    assert_eq!(result.expect("no error"), Progress::Granted);
    woken
}

fn taken((result, woken): (Result<()>, Woken)) -> Woken {
    result.expect("nothing in the way");
    woken
}

fn waiting((result, woken): (Result<Progress>, Woken)) -> WaiterId {
    assert_eq!(woken, []);
    match result {
        Ok(Progress::Waiting(id)) => id,
        other => panic!("not waiting but {other:?}"),
    }
}

fn would_block((result, woken): (Result<()>, Woken)) -> bool {
    matches!(result, Err(Error(ErrorKind::WouldBlock))) && woken.is_empty()
}

fn held(table: &LockTable, space: LockSpace) -> Vec<Lock> {
    table.queues.get(&(INO, space)).map(|q| q.held.iter().copied().collect()).unwrap_or_default()
}

#[test]
fn unlocking_the_middle_splits_and_locking_it_again_merges() {
    let mut table = LockTable::new();
    taken(table.try_set(INO, Posix, lock(1, Shared, 0, 99)));
    table.unset(INO, Posix, owner(1), 40, 59);
    assert_eq!(held(&table, Posix), [lock(1, Shared, 0, 39), lock(1, Shared, 60, 99)]);
    taken(table.try_set(INO, Posix, lock(1, Shared, 40, 59)));
    assert_eq!(held(&table, Posix), [lock(1, Shared, 0, 99)]);
    taken(table.try_set(INO, Posix, lock(1, Exclusive, 10, 19)));
    assert_eq!(
        held(&table, Posix),
        [lock(1, Shared, 0, 9), lock(1, Exclusive, 10, 19), lock(1, Shared, 20, 99)]
    );
    table.unset(INO, Posix, owner(1), 0, RANGE_END_MAX);
    assert!(table.is_empty());
}

#[test]
fn ranges_at_both_ends_of_a_file_neither_overflow_nor_touch() {
    let mut table = LockTable::new();
    taken(table.try_set(INO, Posix, lock(1, Shared, 0, 0)));
    taken(table.try_set(INO, Posix, lock(1, Shared, RANGE_END_MAX, RANGE_END_MAX)));
    assert_eq!(held(&table, Posix).len(), 2);
    taken(table.try_set(INO, Posix, lock(1, Shared, 1, RANGE_END_MAX - 1)));
    assert_eq!(held(&table, Posix), [all(1, Shared)]);
}

#[test]
fn the_answer_to_get_is_the_first_lock_in_the_way_with_its_process() {
    let mut table = LockTable::new();
    taken(table.try_set(INO, Posix, lock(2, Shared, 50, 60)));
    taken(table.try_set(INO, Posix, lock(1, Exclusive, 10, 20)));
    assert_eq!(table.get(INO, Posix, all(3, Shared)), Some(lock(1, Exclusive, 10, 20)));
    assert_eq!(table.get(INO, Posix, all(1, Exclusive)), Some(lock(2, Shared, 50, 60)));
    assert_eq!(table.get(INO, Posix, lock(3, Shared, 30, 100)), None);
    assert_eq!(table.get(Ino(10), Posix, all(3, Exclusive)), None);
}

#[test]
fn fcntl_and_flock_do_not_see_each_other() {
    let mut table = LockTable::new();
    taken(table.try_set(INO, Posix, all(1, Exclusive)));
    taken(table.try_set(INO, Flock, all(2, Exclusive)));
    assert!(would_block(table.try_set(INO, Flock, lock(1, Shared, 5, 6))));
}

#[test]
fn waiters_are_served_in_order_and_readers_together() {
    let mut table = LockTable::new();
    taken(table.try_set(INO, Posix, all(1, Exclusive)));
    let first = waiting(table.set(INO, Posix, lock(2, Shared, 0, 9)));
    let second = waiting(table.set(INO, Posix, lock(3, Exclusive, 5, 9)));
    let third = waiting(table.set(INO, Posix, lock(4, Shared, 0, 4)));
    assert_eq!(table.unset(INO, Posix, owner(1), 0, RANGE_END_MAX), [first, third]);
    assert_eq!(table.release_owner(INO, Posix, owner(4)), []);
    assert_eq!(table.release_owner(INO, Posix, owner(2)), [second]);
}

#[test]
fn a_lock_that_becomes_weaker_lets_others_in() {
    let mut table = LockTable::new();
    for space in [Posix, Flock] {
        taken(table.try_set(INO, space, all(1, Exclusive)));
        let reader = waiting(table.set(INO, space, all(2, Shared)));
        assert_eq!(taken(table.try_set(INO, space, all(1, Shared))), [reader]);
    }
}

#[test]
fn a_try_succeeds_although_a_writer_waits() {
    let mut table = LockTable::new();
    taken(table.try_set(INO, Posix, all(1, Shared)));
    waiting(table.set(INO, Posix, all(2, Exclusive)));
    taken(table.try_set(INO, Posix, all(3, Shared)));
}

#[test]
fn an_interrupted_wait_is_forgotten_and_one_that_was_granted_cannot_be() {
    let mut table = LockTable::new();
    taken(table.try_set(INO, Posix, all(1, Exclusive)));
    let cancelled = waiting(table.set(INO, Posix, all(2, Exclusive)));
    let served = waiting(table.set(INO, Posix, all(3, Exclusive)));
    assert!(table.cancel(cancelled));
    assert!(!table.cancel(cancelled));
    assert_eq!(table.release_owner(INO, Posix, owner(1)), [served]);
    assert!(!table.cancel(served));
    table.release_owner(INO, Posix, owner(3));
    assert!(table.is_empty() && table.waiters.is_empty());
}

#[test]
fn waiting_in_a_circle_over_several_files_is_refused() {
    let mut table = LockTable::new();
    for n in 1..=3 {
        taken(table.try_set(Ino(n), Posix, all(n, Exclusive)));
    }
    waiting(table.set(Ino(2), Posix, all(1, Shared)));
    waiting(table.set(Ino(3), Posix, all(2, Exclusive)));
    let closing = table.set(Ino(1), Posix, all(3, Shared));
    assert!(matches!(closing.0, Err(Error(ErrorKind::Deadlock))));
    assert_eq!(table.waiters.len(), 2);
    // Whoever is not part of the circle may wait for it.
    waiting(table.set(Ino(1), Posix, all(4, Shared)));
}

#[test]
fn two_readers_of_one_range_that_both_want_to_write_are_a_deadlock() {
    let mut table = LockTable::new();
    taken(table.try_set(INO, Posix, all(1, Shared)));
    taken(table.try_set(INO, Posix, all(2, Shared)));
    let first = waiting(table.set(INO, Posix, all(1, Exclusive)));
    assert!(matches!(table.set(INO, Posix, all(2, Exclusive)).0, Err(Error(ErrorKind::Deadlock))));
    assert_eq!(table.release_owner(INO, Posix, owner(2)), [first]);
}

#[test]
fn an_flock_that_cannot_become_stronger_is_lost_and_two_who_try_do_not_hang() {
    let mut table = LockTable::new();
    taken(table.try_set(INO, Flock, all(1, Shared)));
    taken(table.try_set(INO, Flock, all(2, Shared)));
    assert!(would_block(table.try_set(INO, Flock, all(1, Exclusive))));
    assert_eq!(held(&table, Flock), [all(2, Shared)]);

    taken(table.try_set(INO, Flock, all(1, Shared)));
    let first = waiting(table.set(INO, Flock, all(1, Exclusive)));
    assert_eq!(granted(table.set(INO, Flock, all(2, Exclusive))), []);
    assert_eq!(table.release_owner(INO, Flock, owner(2)), [first]);
}

#[test]
fn regression_a_shared_flock_that_is_lost_lets_a_second_thread_of_the_other_holder_in() {
    let mut table = LockTable::new();
    taken(table.try_set(INO, Flock, all(1, Shared)));
    taken(table.try_set(INO, Flock, all(2, Shared)));
    let second_thread = waiting(table.set(INO, Flock, all(2, Exclusive)));
    taken(table.try_set(INO, Flock, all(2, Shared)));
    let (result, woken) = table.try_set(INO, Flock, all(1, Exclusive));
    assert!(result.is_err());
    assert_eq!(woken, [second_thread]);
    assert_eq!(held(&table, Flock), [all(2, Exclusive)]);
}

#[test]
fn a_client_that_leaves_gives_up_its_locks_and_its_waiters() {
    let mut table = LockTable::new();
    taken(table.try_set(INO, Posix, lock(0, Exclusive, 0, 4)));
    taken(table.try_set(INO, Flock, all(1, Exclusive)));
    let of_other = waiting(table.set(INO, Posix, lock(2, Exclusive, 0, 9)));
    let of_same = waiting(table.set(INO, Posix, lock(1, Exclusive, 0, 9)));
    assert_eq!(table.release_client(ClientId(0)), [of_other]);
    assert!(!table.cancel(of_same));
    assert_eq!(held(&table, Posix), [lock(2, Exclusive, 0, 9)]);
    assert!(held(&table, Flock).is_empty());
    table.release_client(ClientId(1));
    assert!(table.is_empty() && table.waiters.is_empty());
}

/// Bytes that the model knows; the last stands for the end of the file.
const BYTES: usize = 10;
const OWNERS: u64 = 4;

/// Per byte and owner the kind that is held; those who wait, in order.
#[derive(Clone, Debug, Default)]
struct Model {
    bytes: [[Option<LockKind>; OWNERS as usize]; BYTES],
    waiting: Vec<(WaiterId, u64, LockKind, usize, usize)>,
}

impl Model {
    fn blockers(&self, by: u64, kind: LockKind, start: usize, end: usize) -> Vec<u64> {
        let others = |byte: &[Option<LockKind>; OWNERS as usize]| {
            let byte = *byte;
            (0..OWNERS).filter(move |other| {
                let theirs = byte[*other as usize];
                *other != by && theirs.is_some_and(|k| k == Exclusive || kind == Exclusive)
            })
        };
        self.bytes[start..=end].iter().flat_map(others).collect()
    }

    fn fill(&mut self, by: u64, kind: Option<LockKind>, start: usize, end: usize) {
        self.bytes[start..=end].iter_mut().for_each(|byte| byte[by as usize] = kind);
    }

    fn wake(&mut self) -> Woken {
        let mut woken = Woken::new();
        loop {
            let before = woken.len();
            for (id, by, kind, start, end) in std::mem::take(&mut self.waiting) {
                if self.blockers(by, kind, start, end).is_empty() {
                    self.fill(by, Some(kind), start, end);
                    woken.push(id);
                } else {
                    self.waiting.push((id, by, kind, start, end));
                }
            }
            if woken.len() == before {
                return woken;
            }
        }
    }

    /// Does `from` wait, over however many others, for `to`?
    fn waits_for(&self, from: u64, to: u64, depth: u64) -> bool {
        from == to
            || depth > 0
                && self.waiting.iter().filter(|w| w.1 == from).any(|(_, by, kind, start, end)| {
                    let blockers = self.blockers(*by, *kind, *start, *end);
                    blockers.into_iter().any(|next| self.waits_for(next, to, depth - 1))
                })
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Set { by: u64, kind: LockKind, start: usize, end: usize, wait: bool },
    Unset { by: u64, start: usize, end: usize },
    Cancel(usize),
    Client(u32),
}

fn any_op() -> impl Strategy<Value = Op> {
    let range = || (0..BYTES, 0..BYTES).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let kind = prop_oneof![Just(Shared), Just(Exclusive)];
    prop_oneof![
        6 => (0..OWNERS, kind, range(), any::<bool>()).prop_map(
            |(by, kind, (start, end), wait)| Op::Set { by, kind, start, end, wait }),
        4 => (0..OWNERS, range()).prop_map(|(by, (start, end))| Op::Unset { by, start, end }),
        1 => any::<usize>().prop_map(Op::Cancel),
        1 => (0..2_u32).prop_map(Op::Client),
    ]
}

/// The model's byte in a file; its last byte reaches to the end.
fn last(byte: usize) -> u64 {
    if byte == BYTES - 1 { RANGE_END_MAX } else { byte as u64 }
}

fn apply(table: &mut LockTable, model: &mut Model, space: LockSpace, op: Op) {
    match op {
        Op::Set { by, kind, start, end, wait } => {
            let wanted = lock(by, kind, start as u64, last(end));
            let (start, end) = if space == Flock { (0, BYTES - 1) } else { (start, end) };
            let blockers = model.blockers(by, kind, start, end);
            assert_eq!(table.get(INO, space, wanted).is_none(), blockers.is_empty());
            let (result, woken) = if wait {
                table.set(INO, space, wanted)
            } else {
                let (result, woken) = table.try_set(INO, space, wanted);
                (result.map(|()| Progress::Granted), woken)
            };
            if blockers.is_empty() {
                model.fill(by, Some(kind), start, end);
            } else if space == Flock {
                model.fill(by, None, start, end);
            }
            assert_eq!(woken, model.wake());
            let circle = blockers.iter().any(|other| model.waits_for(*other, by, OWNERS));
            match result {
                Ok(Progress::Granted) if blockers.is_empty() => {}
                Ok(Progress::Waiting(id)) if wait && (space == Flock || !circle) => {
                    model.waiting.push((id, by, kind, start, end));
                }
                Err(Error(ErrorKind::Deadlock)) if wait && space == Posix && circle => {}
                Err(Error(ErrorKind::WouldBlock)) if !wait => {}
                other => panic!("{other:?} for {op:?}, blocked by {blockers:?}"),
            }
        }
        Op::Unset { by, start, end } => {
            let woken = table.unset(INO, space, owner(by), start as u64, last(end));
            let (start, end) = if space == Flock { (0, BYTES - 1) } else { (start, end) };
            model.fill(by, None, start, end);
            assert_eq!(woken, model.wake());
        }
        Op::Cancel(which) if !model.waiting.is_empty() => {
            let (id, ..) = model.waiting.remove(which % model.waiting.len());
            assert!(table.cancel(id));
        }
        Op::Cancel(which) => assert!(!table.cancel(WaiterId(which as u64 | 1 << 40))),
        Op::Client(client) => {
            for by in (0..OWNERS).filter(|by| owner(*by).client == ClientId(client)) {
                model.fill(by, None, 0, BYTES - 1);
                model.waiting.retain(|waiter| waiter.1 != by);
            }
            assert_eq!(table.release_client(ClientId(client)), model.wake());
        }
    }
}

/// The same bytes are held by the same owners, and nothing is in two pieces that could be one.
fn check(table: &LockTable, model: &Model, space: LockSpace) {
    let held = held(table, space);
    for (byte, owners) in model.bytes.iter().enumerate() {
        for (by, kind) in owners.iter().enumerate() {
            let at = |lock: &&Lock| {
                lock.owner == owner(by as u64) && lock.overlaps(byte as u64, last(byte))
            };
            let found: Vec<LockKind> = held.iter().filter(at).map(|lock| lock.kind).collect();
            assert_eq!(found, kind.iter().copied().collect::<Vec<_>>(), "byte {byte}: {held:?}");
        }
    }
    for (n, one) in held.iter().enumerate() {
        let joins = |other: &&Lock| {
            other.owner == one.owner
                && other.kind == one.kind
                && one.end.checked_add(1) == Some(other.start)
        };
        assert!(held[n..].iter().find(joins).is_none(), "{held:?}");
    }
    assert!(held.is_sorted_by_key(|lock| lock.start));
    let waiting: HashSet<WaiterId> = model.waiting.iter().map(|waiter| waiter.0).collect();
    assert_eq!(table.waiters.keys().copied().collect::<HashSet<_>>(), waiting);
    assert_eq!(table.is_empty(), held.is_empty() && waiting.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn any_sequence_does_what_a_table_of_bytes_does(
        flock in any::<bool>(), ops in proptest::collection::vec(any_op(), 1..40),
    ) {
        let space = if flock { Flock } else { Posix };
        let (mut table, mut model) = (LockTable::new(), Model::default());
        for op in ops {
            apply(&mut table, &mut model, space, op);
            check(&table, &model, space);
        }
    }
}
