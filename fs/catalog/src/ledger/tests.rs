//! The rules of a ledger, and that a snapshot is the state.

use super::*;
use crate::digest::{Algorithm, Digest};
use crate::hash::Hasher;
use crate::log::State;
use crate::names::{RepoName, UploadId};

fn digest(name: &str) -> Digest {
    Hasher::digest(Algorithm::Sha256, name.as_bytes())
}

fn repo(name: &str) -> RepoName {
    name.parse().expect("a name")
}

fn intent(id: &str, k: IntentKind, r: &str, blobs: &[&str]) -> LedgerOp {
    let d = blobs.iter().map(|name| (digest(name), 100)).collect();
    LedgerOp::Intent { i: id.to_owned(), k, r: repo(r), d, t: 0 }
}

fn settle(id: &str, r: &str, seen: &[(&str, bool, u64)]) -> LedgerOp {
    let seen =
        seen.iter().map(|(name, here, seq)| Seen { d: digest(name), here: *here, seq: *seq });
    LedgerOp::Settle { i: id.to_owned(), r: repo(r), s: seen.collect() }
}

fn ledger(ops: &[LedgerOp]) -> Ledger {
    let mut ledger = Ledger::default();
    ops.iter().for_each(|op| ledger.apply(op));
    let mut again = Ledger::default();
    ledger.snapshot().iter().for_each(|op| again.apply(op));
    assert_eq!(ledger, again, "a snapshot is the state");
    ledger
}

use IntentKind::{Link, Unlink};

#[test]
fn a_blob_counts_once_from_its_first_link_to_its_last() {
    let mut ops = vec![intent("1", Link, "a/x", &["blob"])];
    assert_eq!(ledger(&ops).used_bytes(), 100, "from the intent on");
    ops.push(settle("1", "a/x", &[("blob", true, 1)]));
    ops.push(intent("2", Link, "a/y", &["blob"]));
    ops.push(settle("2", "a/y", &[("blob", true, 1)]));
    assert_eq!((ledger(&ops).used_bytes(), ledger(&ops).blobs()), (100, 1));
    ops.push(intent("3", Unlink, "a/x", &["blob"]));
    ops.push(settle("3", "a/x", &[("blob", false, 2)]));
    assert_eq!(ledger(&ops).used_bytes(), 100);
    assert_eq!(ledger(&ops).repos_with(&digest("blob")).collect::<Vec<_>>(), [&repo("a/y")]);
    ops.push(intent("4", Unlink, "a/y", &["blob"]));
    assert_eq!(ledger(&ops).used_bytes(), 100, "until it is settled");
    ops.push(settle("4", "a/y", &[("blob", false, 2)]));
    assert_eq!(ledger(&ops), Ledger::default());
}

#[test]
fn settling_twice_or_what_is_not_known_changes_nothing() {
    let mut ops =
        vec![intent("1", Link, "a/x", &["blob"]), settle("1", "a/x", &[("blob", true, 1)])];
    let once = ledger(&ops);
    ops.push(settle("1", "a/x", &[("blob", false, 9)]));
    ops.push(settle("2", "a/x", &[("blob", false, 9)]));
    assert_eq!(ledger(&ops), once);
}

#[test]
fn an_older_observation_never_overrides_a_newer_one() {
    // Unlinked in state 5, linked again in state 6, whoever settles first.
    let begin = [
        LedgerOp::Hold { r: repo("a/x"), d: digest("blob"), n: 100, s: 1 },
        intent("u", Unlink, "a/x", &["blob"]),
        intent("l", Link, "a/x", &["blob"]),
    ];
    let unlinked = settle("u", "a/x", &[("blob", false, 5)]);
    let linked = settle("l", "a/x", &[("blob", true, 6)]);
    let one = ledger(&[&begin[..], &[unlinked.clone(), linked.clone()]].concat());
    let other = ledger(&[&begin[..], &[linked, unlinked]].concat());
    assert_eq!(one, other);
    assert_eq!(one.used_bytes(), 100);
    assert_eq!(one.repos_with(&digest("blob")).count(), 1);
}

#[test]
fn an_absence_is_remembered_while_another_intent_is_open() {
    let mut ops = vec![
        LedgerOp::Hold { r: repo("a/x"), d: digest("blob"), n: 100, s: 1 },
        intent("u", Unlink, "a/x", &["blob"]),
        intent("l", Link, "a/x", &["blob"]),
        settle("u", "a/x", &[("blob", false, 7)]),
    ];
    assert_eq!(ledger(&ops).used_bytes(), 100);
    ops.push(settle("l", "a/x", &[("blob", true, 6)]));
    assert_eq!(ledger(&ops), Ledger::default(), "it was linked before it was unlinked");
}

#[test]
fn reservations_add_up_and_are_replaced() {
    let (one, two) = (UploadId::from_bytes([1; 16]), UploadId::from_bytes([2; 16]));
    let reserve = |u: &UploadId, n| LedgerOp::Reserve { u: u.clone(), n, t: 0 };
    let mut ops = vec![reserve(&one, 10), reserve(&two, 5), reserve(&one, 30)];
    assert_eq!(ledger(&ops).reserved_bytes(), 35);
    ops.extend([reserve(&one, 0), reserve(&one, 0)]);
    assert_eq!(ledger(&ops).reserved_bytes(), 5);
    assert_eq!(ledger(&ops).reserved_by(&two), 5);
}

#[test]
fn the_counter_grows_and_shows_who_is_at_it() {
    let by = "instance".to_owned();
    let open = ledger(&[
        LedgerOp::Open { by: by.clone(), t: 5 },
        LedgerOp::Bump { by: by.clone(), end: false },
    ]);
    assert_eq!((open.counter, open.open.len()), (1, 1));
    let done = ledger(&[LedgerOp::Open { by: by.clone(), t: 5 }, LedgerOp::Bump { by, end: true }]);
    assert_eq!((done.counter, done.open.len()), (1, 0));
}
