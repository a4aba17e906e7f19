//! What is done together, and what alone.

use super::*;

fn job(path: &str, old: &str, to: To) -> Job {
    Job { path: path.into(), old: old.into(), to }
}

#[test]
fn entries_of_one_shard_are_changed_together_and_what_asks_an_object_is_alone() {
    let names = (0..1000).map(|n| format!("homes/a/{n}"));
    let removed = names.map(|name| job(&name, "v", To::Removed));
    let asking = [job("homes/b/1", "v", To::Verified), job("homes/b/2", "v", To::Settled)];
    let work = divide(removed.chain(asking));
    let (mut entries, mut requests, mut alone) = (0, 0, 0);
    for one in work {
        match one {
            Work::Alone(job) => {
                assert!(matches!(job.to, To::Verified | To::Settled), "{job:?}");
                alone += 1;
            }
            Work::Together(shard, changes) => {
                assert!((1..=CHANGES_MAX).contains(&changes.len()));
                assert!(changes.iter().all(|one| format::shard_of(&one.path) == shard));
                entries += changes.len();
                requests += 1;
            }
        }
    }
    assert_eq!((entries, alone), (1000, 2));
    // A home's names lie in eight shards.
    assert!(requests <= 1000 / CHANGES_MAX + 8, "{requests}");
}

#[test]
fn of_two_changes_of_an_entry_the_later_one_counts() {
    let work = divide([job("a/b/1", "1", To::Removed), job("a/b/1", "2", To::Removed)].into_iter());
    let [Work::Together(_, changes)] = &work[..] else { panic!("one request") };
    assert_eq!(changes.iter().map(|one| &one.old[..]).collect::<Vec<_>>(), [b"2"]);
}
