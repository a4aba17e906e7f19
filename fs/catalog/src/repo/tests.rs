//! The rules of a repository, and that a snapshot is the state.

use super::keep::Ages;
use super::*;
use crate::digest::{Algorithm, Digest};
use crate::hash::Hasher;
use crate::log::State;
use crate::types::ManifestLinks;

const DAY: u64 = 24 * 3600 * 1000;

fn digest(name: &str) -> Digest {
    Hasher::digest(Algorithm::Sha256, name.as_bytes())
}

fn manifest(name: &str, t: u64, links: ManifestLinks) -> RepoOp {
    RepoOp::Manifest { d: digest(name), n: 10, m: "m".to_owned(), t, l: Box::new(links) }
}

fn tag(name: &str, to: &str, t: u64) -> RepoOp {
    RepoOp::Tag { g: name.parse().expect("a tag"), d: digest(to), t }
}

fn ages(now_ms: u64) -> Ages {
    Ages { now_ms, grace_ms: 2 * DAY, untagged_ms: 14 * DAY }
}

fn repo(ops: &[RepoOp]) -> Repo {
    let mut repo = Repo::default();
    ops.iter().for_each(|op| repo.apply(op));
    let mut again = Repo::default();
    repo.snapshot().iter().for_each(|op| again.apply(op));
    assert_eq!(repo, again, "a snapshot is the state");
    repo
}

fn of(children: &[&str], subject: Option<&str>) -> ManifestLinks {
    ManifestLinks {
        children: children.iter().map(|name| digest(name)).collect(),
        subject: subject.map(digest),
        ..ManifestLinks::default()
    }
}

fn due(repo: &Repo, now: u64) -> Vec<&'static str> {
    let all = ["a", "b", "c", "d", "i"];
    let due = repo.due_manifests(&ages(now));
    all.into_iter().filter(|name| due.contains(&digest(name))).collect()
}

#[test]
fn an_untagged_manifest_goes_after_its_time_and_a_moved_tag_starts_it() {
    let mut ops = vec![manifest("a", 0, of(&[], None)), tag("t", "a", 0)];
    assert!(due(&repo(&ops), 100 * DAY).is_empty());
    ops.extend([manifest("b", DAY, of(&[], None)), tag("t", "b", DAY)]);
    assert!(due(&repo(&ops), 15 * DAY - 1).is_empty());
    assert_eq!(due(&repo(&ops), 15 * DAY), ["a"]);
    ops.push(tag("other", "a", 15 * DAY));
    assert!(due(&repo(&ops), 100 * DAY).is_empty());
}

#[test]
fn an_index_keeps_its_manifests_and_lets_them_go_after_itself() {
    let mut ops = vec![
        manifest("a", 0, of(&[], None)),
        manifest("i", 0, of(&["a", "missing"], None)),
        tag("t", "i", 0),
    ];
    let kept = repo(&ops);
    assert!(due(&kept, 100 * DAY).is_empty());
    assert_eq!(kept.parent_of(&digest("a")), Some(digest("i")));
    ops.push(RepoOp::Untag { g: "t".parse().expect("a tag"), t: DAY });
    assert_eq!(due(&repo(&ops), 15 * DAY), ["i"]);
    ops.push(RepoOp::Drop { d: digest("i"), t: 15 * DAY });
    let left = repo(&ops);
    assert!(due(&left, 29 * DAY - 1).is_empty());
    assert_eq!(due(&left, 29 * DAY), ["a"]);
}

#[test]
fn referrers_go_with_their_subject() {
    let mut ops = vec![
        manifest("b", 0, of(&[], Some("a"))),
        manifest("c", 0, of(&[], Some("b"))),
        manifest("a", DAY, of(&[], None)),
        tag("t", "a", DAY),
        manifest("d", DAY, of(&[], Some("a"))),
        tag("kept", "d", DAY),
    ];
    assert!(due(&repo(&ops), 100 * DAY).is_empty(), "the subject keeps them");
    let untag = RepoOp::Untag { g: "t".parse().expect("a tag"), t: DAY };
    let untagged = repo(&[&ops[..], &[untag]].concat());
    assert_eq!(due(&untagged, 15 * DAY), ["a", "b", "c"]);
    ops.push(RepoOp::Drop { d: digest("a"), t: 20 * DAY });
    let removed = repo(&ops);
    assert!(due(&removed, 22 * DAY - 1).is_empty());
    assert_eq!(due(&removed, 22 * DAY), ["b", "c"]);
    ops.push(manifest("a", 21 * DAY, of(&[], None)));
    assert!(due(&repo(&ops), 30 * DAY).is_empty(), "it came back");
}

#[test]
fn a_referrer_whose_subject_never_came_goes_as_an_untagged_one() {
    let alone = repo(&[manifest("b", 0, of(&[], Some("a")))]);
    assert!(due(&alone, 14 * DAY - 1).is_empty());
    assert_eq!(due(&alone, 14 * DAY), ["b"]);
    assert_eq!(alone.referrers_of(&digest("a")).count(), 1);
}

#[test]
fn a_link_is_condemned_when_nothing_uses_it_and_saved_by_use() {
    let layer = digest("layer");
    let uses = ManifestLinks { layers: vec![layer], ..ManifestLinks::default() };
    let mut ops = vec![RepoOp::Link { d: layer, n: 5, t: 0 }];
    assert!(repo(&ops).unused_links(&ages(2 * DAY - 1)).is_empty());
    assert_eq!(repo(&ops).unused_links(&ages(2 * DAY)), [layer]);
    ops.push(RepoOp::Condemn { d: vec![layer], t: 2 * DAY });
    assert!(repo(&ops).due_links(&ages(4 * DAY - 1)).is_empty());
    assert_eq!(repo(&ops).due_links(&ages(4 * DAY)).len(), 1);
    ops.push(manifest("a", 3 * DAY, uses));
    let used = repo(&ops);
    assert!(used.due_links(&ages(9 * DAY)).is_empty());
    assert_eq!(used.user_of(&layer), Some(digest("a")));
    ops.push(RepoOp::Drop { d: digest("a"), t: 5 * DAY });
    let unused = repo(&ops);
    assert_eq!(unused.user_of(&layer), None);
    assert!(unused.due_links(&ages(9 * DAY)).is_empty(), "it must be condemned anew");
}

#[test]
fn dropping_a_manifest_takes_its_tags_and_leaves_others() {
    let left = repo(&[
        manifest("a", 0, of(&[], None)),
        manifest("b", 0, of(&[], None)),
        tag("one", "a", 0),
        tag("two", "a", 0),
        tag("three", "b", 0),
        RepoOp::Drop { d: digest("a"), t: 1 },
    ]);
    let tags: Vec<_> = left.tags.keys().map(|tag| tag.as_str()).collect();
    assert_eq!(tags, ["three"]);
}

#[test]
fn a_voided_intent_is_remembered_for_a_week() {
    let void = |i: &str, t| RepoOp::Void { i: i.to_owned(), t };
    let state = repo(&[void("x", 0), void("y", 6 * DAY)]);
    assert_eq!(state.voided.len(), 2);
    let state = repo(&[void("x", 0), void("y", 8 * DAY)]);
    assert_eq!(state.voided.keys().collect::<Vec<_>>(), ["y"]);
}
