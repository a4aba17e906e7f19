//! The wrappers under faults: what a plan does, what retries make of it, what heads say.

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use std::sync::Arc;
use std::time::Duration;
use yadokari_store::fault::{Action, Crash, Fault, FaultPlan, FaultStore, OpKind};
use yadokari_store::head::{self, HeadError};
use yadokari_store::retry::{RetryPolicy, RetryStore};
use yadokari_store::{Kind, Store, kind};

fn faulty(plan: impl Into<FaultPlan>) -> (Arc<dyn ObjectStore>, FaultStore) {
    let memory = Store::memory().data;
    (memory.clone(), FaultStore::new(memory, plan.into()))
}

fn retried(store: &FaultStore) -> RetryStore {
    let policy = RetryPolicy { seed: Some(1), ..RetryPolicy::default() };
    RetryStore::new(Arc::new(store.clone()), policy)
}

#[tokio::test]
async fn a_rule_acts_on_its_kind_prefix_and_count_alone() {
    let fault = Fault::new(Action::Fail(Kind::NoSpace)).on([OpKind::Put]).under("a/").after(1);
    let (_, store) = faulty(fault);
    store.put(&"a/1".into(), "x".into()).await.expect("the first passes");
    store.put(&"b/1".into(), "x".into()).await.expect("another prefix passes");
    store.get(&"a/1".into()).await.expect("another kind passes");
    let error = store.put(&"a/2".into(), "x".into()).await.expect_err("the second fails");
    assert_eq!(kind(&error), Kind::NoSpace);
    store.put(&"a/2".into(), "x".into()).await.expect("it acts once");
    assert_eq!(store.counters().of(OpKind::Put), 4);
    assert_eq!(store.counters().faulted, 1);
}

#[tokio::test]
async fn the_same_seed_fails_the_same_operations() {
    let run = |seed| async move {
        let fault = Fault::new(Action::Fail(Kind::Unavailable)).always().probability(0.3);
        let (_, store) = faulty(FaultPlan::new(seed, [fault]));
        let mut failed = Vec::new();
        for i in 0..100 {
            if store.put(&Path::from(i.to_string()), "x".into()).await.is_err() {
                failed.push(i);
            }
        }
        failed
    };
    let first = run(7).await;
    assert!((15..45).contains(&first.len()), "{first:?}");
    assert_eq!(first, run(7).await);
    assert_ne!(first, run(8).await);
}

#[tokio::test]
async fn a_crash_leaves_the_operation_undone_done_or_half_and_ends_all_others() {
    let cases = [(Crash::Before, None), (Crash::After, Some("data")), (Crash::Half, Some("da"))];
    for (crash, left) in cases {
        let (memory, store) = faulty(FaultPlan::crash_at_write(1, crash));
        store.put(&"first".into(), "x".into()).await.expect("passes");
        store.put(&"second".into(), "data".into()).await.expect_err("crashes");
        assert!(store.control().crashed());
        store.get(&"first".into()).await.expect_err("the process is dead");
        match (memory.get(&"second".into()).await, left) {
            (Ok(found), Some(left)) => assert_eq!(found.bytes().await.expect("bytes"), left),
            (Err(_), None) => {}
            (found, left) => panic!("{found:?}, expected {left:?}"),
        }
        store.control().revive();
        store.get(&"first".into()).await.expect("the next process lives");
    }
}

#[tokio::test(start_paused = true)]
async fn what_hangs_goes_on_when_released_and_disturbs_nothing_else() {
    let (_, store) = faulty(Fault::new(Action::Hang).under("slow").always());
    let hung = {
        let store = store.clone();
        tokio::spawn(async move { store.put(&"slow".into(), "x".into()).await })
    };
    store.put(&"quick".into(), "x".into()).await.expect("passes");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!hung.is_finished());
    assert_eq!(store.control().hanging(), 1);
    store.control().disarm();
    hung.await.expect("no panic").expect("it happened");
    assert_eq!(store.control().hanging(), 0);
}

#[tokio::test]
async fn a_truncated_or_flipped_head_is_named_corrupt() {
    for action in [Action::Truncate { keep: 20 }, Action::FlipBit { bit: 400 }] {
        let (_, store) = faulty(Fault::new(action).on([OpKind::Get]));
        let path = Path::from("head");
        head::create_head(&store, &path, b"some state").await.expect("created");
        let error = head::read_head(&store, &path).await.expect_err("damaged");
        assert!(matches!(error, HeadError::Corrupt { .. }), "{error}");
        head::read_head(&store, &path).await.expect("the second read is whole");
    }
}

#[tokio::test]
async fn a_head_is_swapped_by_the_version_that_was_read() {
    let store = Store::memory().meta;
    let path = Path::from("h");
    assert!(head::find_head(&store, &path).await.expect("an answer").is_none());
    let one = head::create_head(&store, &path, b"1").await.expect("created");
    let error = head::create_head(&store, &path, b"1").await.expect_err("it exists");
    assert!(matches!(error, HeadError::Exists(_)), "{error}");
    head::swap_head(&store, &path, &one, b"2").await.expect("swapped");
    let error = head::swap_head(&store, &path, &one, b"3").await.expect_err("it changed");
    assert!(matches!(error, HeadError::Conflict(_)), "{error}");
    assert_eq!(head::read_head(&store, &path).await.expect("read").data, "2");
}

#[tokio::test]
async fn a_head_is_read_again_only_when_it_changed() {
    let store = Store::memory().meta;
    let path = Path::from("h");
    let one = head::create_head(&store, &path, b"1").await.expect("created");
    let now = head::refresh_head(&store, &path, &one).await.expect("an answer");
    assert_eq!(now, head::HeadNow::Same);
    let two = head::swap_head(&store, &path, &one, b"2").await.expect("swapped");
    match head::refresh_head(&store, &path, &one).await.expect("an answer") {
        head::HeadNow::Changed(head) => {
            assert_eq!((&head.data[..], head.version), (&b"2"[..], two.clone()))
        }
        other => panic!("{other:?}"),
    }
    store.delete(&path).await.expect("deleted");
    let now = head::refresh_head(&store, &path, &two).await.expect("an answer");
    assert_eq!(now, head::HeadNow::Gone);
}

#[tokio::test(start_paused = true)]
async fn a_create_and_an_update_whose_answers_were_lost_succeed() {
    let fault = Fault::new(Action::LoseAnswer(Kind::Unavailable))
        .on([OpKind::Create, OpKind::Update])
        .times(2);
    let (_, store) = faulty(fault);
    let store = retried(&store);
    let path = Path::from("x");
    let create = store.put_opts(&path, "1".into(), PutMode::Create.into()).await;
    let version = create.expect("recognised as its own");
    let update = PutMode::Update(version.into());
    store.put_opts(&path, "2".into(), update.into()).await.expect("recognised as its own");
    assert_eq!(store.get(&path).await.expect("got").bytes().await.expect("bytes"), "2");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_create_is_not_taken_for_ones_own() {
    let fault = Fault::new(Action::Fail(Kind::Unavailable)).on([OpKind::Create]);
    let (memory, store) = faulty(fault);
    memory.put(&"x".into(), "theirs".into()).await.expect("put");
    let (store, path) = (retried(&store), Path::from("x"));
    let create = store.put_opts(&path, "ours".into(), PutMode::Create.into()).await;
    assert_eq!(kind(&create.expect_err("it is theirs")), Kind::Exists);
}

#[tokio::test(start_paused = true)]
async fn retries_end_after_the_configured_time_and_never_repeat_what_is_final() {
    let (_, store) = faulty(Fault::new(Action::Fail(Kind::Unavailable)).always());
    let start = tokio::time::Instant::now();
    retried(&store).get(&"x".into()).await.expect_err("nothing answers");
    let took = start.elapsed();
    assert!((50..=60).contains(&took.as_secs()), "{took:?}");
    let (_, store) = faulty(Fault::new(Action::Fail(Kind::NoSpace)).always());
    retried(&store).put(&"x".into(), "x".into()).await.expect_err("full");
    assert_eq!(store.counters().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_delete_whose_answer_was_lost_succeeds() {
    let fault = Fault::new(Action::LoseAnswer(Kind::Unavailable)).on([OpKind::Delete]);
    let (memory, store) = faulty(fault);
    memory.put(&"x".into(), "x".into()).await.expect("put");
    retried(&store).delete(&"x".into()).await.expect("deleted");
    memory.get(&"x".into()).await.expect_err("it is gone");
}
