//! What the table promises, over memory and over files, with a store that fails on purpose.

use std::time::Duration;

use futures::FutureExt;
use object_store::memory::InMemory;
use yadokari_store::error::Kind;
use yadokari_store::fault::{Action, Fault, FaultControl, FaultPlan, FaultStore, OpKind};
use yadokari_store::{Store, StoreOptions, StoreUrl};

use super::*;

const PATH: &str = "homes/test/tables";
/// Nothing in here takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(20);

fn batch(key: &str, value: &str) -> Batch {
    let mut batch = Batch::default();
    batch.put(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    batch
}

async fn open(store: &Arc<dyn ObjectStore>) -> Table {
    let shared = TableShared::new(8 << 20, Arc::new(crate::home::SystemClock));
    Table::open(Arc::clone(store), PATH, &shared, TableOptions::default()).await.expect("open")
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} hangs"))
}

fn text(value: Option<Bytes>) -> Option<String> {
    value.map(|value| String::from_utf8_lossy(&value).into_owned())
}

fn faulty() -> (Arc<dyn ObjectStore>, FaultControl) {
    let store = FaultStore::new(Arc::new(InMemory::new()), FaultPlan::none());
    let control = store.control().clone();
    (Arc::new(store), control)
}

/// SlateDB does not try this again, so that the database closes itself over it.
fn fatal(kinds: impl IntoIterator<Item = OpKind>, folder: &str) -> Fault {
    Fault::new(Action::Fail(Kind::Conflict)).on(kinds).under(format!("{PATH}/{folder}"))
}

/// Memory and a directory, each with a word for messages. The directory goes with its guard.
async fn stores() -> Vec<(&'static str, Arc<dyn ObjectStore>, Option<tempfile::TempDir>)> {
    let dir = tempfile::tempdir().expect("directory");
    let url = format!("file://{}", dir.path().display()).parse::<StoreUrl>().expect("url");
    let file = Store::open(&url, &StoreOptions::default()).await.expect("file store");
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    vec![("memory", memory, None), ("file", file.meta, Some(dir))]
}

#[tokio::test]
async fn what_was_written_is_read_at_once_and_by_the_first_poll() {
    for (name, store, _dir) in stores().await {
        let table = open(&store).await;
        table.write(1, batch("a", "1")).await.expect("write");
        let polled = table.get(b"a").now_or_never().expect("ready").expect("get");
        assert_eq!(text(polled).as_deref(), Some("1"), "{name}");
        let polled = table.get(b"b").now_or_never().expect("ready").expect("get");
        assert_eq!(polled, None, "{name}");
        table.close().await.expect("close");
    }
}

#[tokio::test]
async fn memtables_that_are_too_large_together_are_written_out_the_largest_first() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut shared = TableShared::new(8 << 20, Arc::new(crate::home::SystemClock));
    shared.memtables = Memtables::new(200 << 10);
    let mut tables = Vec::new();
    for name in ["a", "b", "c"] {
        let options = TableOptions::default();
        tables.push(Table::open(Arc::clone(&store), name, &shared, options).await.expect("open"));
    }
    let value = "v".repeat(200);
    // The second one gets most.
    for txn in 1..=2000_u64 {
        let table = &tables[[0, 1, 1, 1, 2][txn as usize % 5]];
        table.write(txn, batch(&format!("k{txn:04}"), &value)).await.expect("write");
    }
    let bytes = || shared.memtables.bytes();
    let less = async {
        while bytes() > 200 << 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("writing out", less).await;
    let written_out = |table: &Table| table.inner.db().manifest().l0().len();
    assert!(written_out(&tables[1]) > 0, "the largest");
    for txn in 1..=2000_u64 {
        let table = &tables[[0, 1, 1, 1, 2][txn as usize % 5]];
        let read = table.get(format!("k{txn:04}").as_bytes()).await.expect("get");
        assert_eq!(text(read).as_ref(), Some(&value), "{txn}");
    }
    for table in tables {
        table.close().await.expect("close");
    }
    assert_eq!(bytes(), 0);
}

/// Rows of which `kept` says which are left, in batches of a thousand, written out.
async fn write_and_delete(table: &Table, rows: u64, kept: impl Fn(u64) -> bool) {
    let key = |n: u64| Bytes::from(format!("k{n:06}"));
    let all: Vec<u64> = (0..rows).collect();
    let mut txn = 0;
    for deletes in [false, true] {
        for part in all.chunks(1000) {
            let mut batch = Batch::default();
            for n in part.iter().filter(|n| !deletes || !kept(**n)) {
                match deletes {
                    true => batch.delete(key(*n)),
                    false => batch.put(key(*n), Bytes::from(vec![7; 40])),
                }
            }
            txn += 1;
            table.write(txn, batch).await.expect("write");
        }
    }
    table.flush().await.expect("flush");
    table.inner.db().flush_with_options(memtable_flush()).await.expect("flush of the memtable");
}

fn memtable_flush() -> slatedb::config::FlushOptions {
    slatedb::config::FlushOptions { flush_type: slatedb::config::FlushType::MemTable }
}

async fn deleted_and_all(table: &Table, store: &Arc<dyn ObjectStore>) -> (u64, u64) {
    let manifest = table.inner.db().manifest();
    let counter = purge::Counter::default();
    let counted = counter.count(manifest.all_sst_views(), PATH, store);
    let purge::Counts { deleted, rows } = counted.await.expect("count");
    (deleted, rows)
}

#[tokio::test(start_paused = true)]
async fn deleted_rows_leave_the_tables_when_little_is_written() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let kept = |n: u64| n.is_multiple_of(10);
    let table = open(&store).await;
    write_and_delete(&table, 20_000, kept).await;
    let (deleted, rows) = deleted_and_all(&table, &store).await;
    assert_eq!(deleted, 18_000);
    assert!(rows > 18_000, "{rows}");
    // The next one begins with it, too.
    let crashed = table.inner.db();
    std::mem::forget(table);
    let table = open(&store).await;
    drop(crashed);
    while deleted_and_all(&table, &store).await.0 > 0 {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let rows = table.scan(b"k".to_vec()..b"l".to_vec(), usize::MAX).await.expect("scan");
    assert_eq!(rows.len(), 2000);
    // In the end nothing is left to do for it.
    tokio::time::sleep(Duration::from_secs(20 * 60)).await;
    assert!(!table.upkeep.is_running());
    table.close().await.expect("close");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_delays_the_leaving_of_deleted_rows_and_nothing_else() {
    let (store, control) = faulty();
    let table = open(&store).await;
    write_and_delete(&table, 20_000, |n| n.is_multiple_of(10)).await;
    control.arm(fatal([OpKind::Put, OpKind::Create], "compacted").times(5).into());
    table.write(100, batch("l", "more")).await.expect("write");
    let mut txn = 100;
    while deleted_and_all(&table, &store).await.0 > 0 {
        // Now and then somebody writes.
        tokio::time::sleep(Duration::from_secs(1)).await;
        txn += 1;
        table.write(txn, batch("l", "more")).await.expect("write");
        assert!(txn < 10_000, "it never ends");
    }
    table.flush().await.expect("flush");
    std::mem::forget(table);
    let table = open(&store).await;
    let rows = table.scan(b"k".to_vec()..b"m".to_vec(), usize::MAX).await.expect("scan");
    assert_eq!(rows.len(), 2001);
    table.close().await.expect("close");
}

#[tokio::test(start_paused = true)]
async fn a_few_deleted_rows_are_left_where_they_are() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let table = open(&store).await;
    write_and_delete(&table, 20_000, |n| !n.is_multiple_of(10)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(deleted_and_all(&table, &store).await.0, 2000);
    table.close().await.expect("close");
}

#[tokio::test]
async fn what_was_flushed_is_there_after_a_crash_and_the_epoch_goes_up() {
    for (name, store, _dir) in stores().await {
        let table = open(&store).await;
        assert_eq!(table.last_txn(), 0);
        table.write(7, batch("a", "1")).await.expect("write");
        table.flush().await.expect("flush");
        let epoch = table.epoch();
        std::mem::forget(table);

        let table = open(&store).await;
        assert_eq!(
            (table.last_txn(), text(table.get(b"a").await.expect("get"))),
            (7, Some("1".into())),
            "{name}"
        );
        assert!(table.epoch() > epoch, "{name}");
        table.close().await.expect("close");
    }
}

#[tokio::test]
async fn a_scan_gives_the_rows_of_its_range_in_order_and_no_more_than_asked() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let table = open(&store).await;
    for n in 0..20_u64 {
        table.write(n + 1, batch(&format!("k{n:02}"), "x")).await.expect("write");
    }
    let mut gone = Batch::default();
    gone.delete(Bytes::from_static(b"k05"));
    table.write(21, gone).await.expect("write");
    let range = b"k03".to_vec()..b"k08".to_vec();
    let rows = table.scan(range.clone(), 100).await.expect("scan");
    let keys: Vec<_> = rows.iter().map(|(key, _)| &key[..]).collect();
    assert_eq!(keys, [b"k03", b"k04", b"k06", b"k07"]);
    assert_eq!(table.scan(range, 2).await.expect("scan").len(), 2);
    table.close().await.expect("close");
}

#[tokio::test]
async fn a_second_writer_fences_the_first_for_ever() {
    for (name, store, _dir) in stores().await {
        let first = open(&store).await;
        first.write(1, batch("a", "first")).await.expect("write");
        first.flush().await.expect("flush");
        let second = open(&store).await;
        let late = async {
            first.write(2, batch("a", "late")).await?;
            first.flush().await
        };
        let late = within("a fenced write", late).await;
        assert!(matches!(late, Err(Error(ErrorKind::Fenced))), "{name}: {late:?}");
        let again = within("a fenced write", first.write(3, batch("a", "later"))).await;
        assert!(matches!(again, Err(Error(ErrorKind::Fenced))), "{name}: {again:?}");
        assert_eq!(text(second.get(b"a").await.expect("get")).as_deref(), Some("first"));
        second.close().await.expect("close");
    }
}

#[tokio::test]
async fn another_epoch_than_the_expected_one_is_refused_and_disturbs_nobody() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let living = open(&store).await;
    let shared = TableShared::new(8 << 20, Arc::new(crate::home::SystemClock));
    let expected_epoch = Some(living.epoch() - 1);
    let options = TableOptions { expected_epoch, seed: None };
    let refused = Table::open(Arc::clone(&store), PATH, &shared, options).await;
    assert!(matches!(refused.err(), Some(Error(ErrorKind::Fenced))));
    living.write(1, batch("a", "1")).await.expect("write");
    living.flush().await.expect("flush");
    living.close().await.expect("close");
}

#[tokio::test]
async fn a_table_that_closed_itself_opens_again_and_misses_nothing() {
    for skip in 0..4 {
        let (store, control) = faulty();
        let table = open(&store).await;
        control.arm(fatal([OpKind::Create], "wal").after(skip).into());
        for txn in 1..=6_u64 {
            let write = table.write(txn, batch(&format!("k{txn}"), "x"));
            within("write", write).await.expect("write");
            within("flush", table.flush()).await.expect("flush");
        }
        std::mem::forget(table);
        let table = open(&store).await;
        assert_eq!(table.last_txn(), 6);
        for txn in 1..=6 {
            let key = format!("k{txn}");
            assert!(table.get(key.as_bytes()).await.expect("get").is_some(), "{key}, skip {skip}");
        }
        table.close().await.expect("close");
    }
}

#[tokio::test]
async fn batches_are_applied_in_order_and_once_however_often_the_table_closes_itself() {
    let (store, control) = faulty();
    let table = open(&store).await;
    for txn in 1..=40_u64 {
        if txn % 4 == 0 {
            control.arm(fatal([OpKind::Create], "wal").into());
        }
        let mut changes = batch("last", &txn.to_string());
        changes.put(Bytes::from(format!("k{txn:02}")), Bytes::from_static(b"x"));
        if txn > 1 {
            changes.delete(Bytes::from(format!("k{:02}", txn - 1)));
        }
        within("write", table.write(txn, changes)).await.expect("write");
        if txn % 3 == 0 {
            within("flush", table.flush()).await.expect("flush");
        }
    }
    within("flush", table.flush()).await.expect("flush");
    std::mem::forget(table);
    let table = open(&store).await;
    assert_eq!(
        (table.last_txn(), text(table.get(b"last").await.expect("get"))),
        (40, Some("40".into()))
    );
    let rows = table.scan(b"k".to_vec()..b"l".to_vec(), 100).await.expect("scan");
    assert_eq!(rows.len(), 1, "{rows:?}");
    table.close().await.expect("close");
}

#[tokio::test]
async fn errors_that_pass_and_lost_answers_are_waited_out() {
    for action in [Action::Fail(Kind::Unavailable), Action::LoseAnswer(Kind::Unavailable)] {
        let (store, control) = faulty();
        let table = open(&store).await;
        let fault = Fault::new(action).on([OpKind::Create, OpKind::Update]).under(PATH).times(2);
        control.arm(fault.into());
        within("write", table.write(1, batch("a", "1"))).await.expect("write");
        within("flush", table.flush()).await.expect("flush");
        table.close().await.expect("close");
    }
}

/// The future of an operation is dropped when its time is up, at whatever point it is.
#[tokio::test]
async fn regression_callers_that_give_up_while_it_opens_again_do_not_fence_it() {
    let kinds = [OpKind::Create, OpKind::Update, OpKind::Get, OpKind::List];
    for skip in 0..8 {
        let (store, control) = faulty();
        let table = open(&store).await;
        table.write(1, batch("a", "1")).await.expect("write");
        table.flush().await.expect("flush");
        table.write(2, batch("b", "2")).await.expect("write");
        let hang = Fault::new(Action::Hang).on(kinds).under(PATH).after(skip).always();
        control.arm(FaultPlan::new(0, [fatal([OpKind::Create], "wal"), hang]));
        let gave_up = tokio::time::timeout(Duration::from_millis(200), table.flush()).await;
        control.disarm();
        within("flush", table.flush())
            .await
            .unwrap_or_else(|error| panic!("{error} after {gave_up:?}, skip {skip}"));
        assert_eq!(text(table.get(b"b").await.expect("get")).as_deref(), Some("2"));
        within("close", table.close()).await.expect("close");
    }
}

/// The write finds the old database closed, and the new one was given its batches before this
/// one came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_beside_a_reader_that_opens_again_is_not_lost() {
    for _ in 0..20 {
        let (store, control) = faulty();
        let table = Arc::new(open(&store).await);
        let reader = Arc::clone(&table);
        let reads = tokio::spawn(async move {
            loop {
                reader.get(b"k1").await.expect("get");
                tokio::task::yield_now().await;
            }
        });
        for txn in 1..=60_u64 {
            if txn % 5 == 0 {
                // One fault at a time: the opening itself is not what this is about.
                control.disarm();
                within("flush", table.flush()).await.expect("flush");
                control.arm(fatal([OpKind::Create], "wal").into());
                // Somebody else's flush meets the fault.
                let other = Arc::clone(&table);
                drop(tokio::spawn(async move { other.flush().await }));
            }
            let write = table.write(txn, batch(&format!("k{txn}"), "x"));
            within("write", write).await.expect("write");
        }
        within("flush", table.flush()).await.expect("flush");
        reads.abort();
        drop(reads.await);
        control.disarm();
        for txn in 1..=60 {
            let key = format!("k{txn}");
            assert!(table.get(key.as_bytes()).await.expect("get").is_some(), "{key}");
        }
        within("close", table.close()).await.expect("close");
    }
}

#[tokio::test]
async fn an_idle_table_asks_the_store_for_nothing() {
    let (store, control) = faulty();
    let table = open(&store).await;
    table.write(1, batch("a", "1")).await.expect("write");
    table.flush().await.expect("flush");
    tokio::time::pause();
    // What follows the last write ends within a minute; then there is silence.
    tokio::time::sleep(Duration::from_secs(60)).await;
    control.reset_counters();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(control.counters().total(), 0);
    tokio::time::resume();
    table.close().await.expect("close");
}

#[tokio::test]
async fn a_reader_sees_what_was_made_durable_and_disturbs_nobody() {
    for (name, store, _dir) in stores().await {
        let table = open(&store).await;
        table.write(1, batch("a", "1")).await.expect("write");
        table.flush().await.expect("flush");
        let reader = TableReader::open(Arc::clone(&store), PATH).await.expect("reader");
        assert_eq!(text(reader.get(b"a").await.expect("get")).as_deref(), Some("1"), "{name}");
        let rows = reader.scan(b"a".to_vec()..b"b".to_vec(), 10).await.expect("scan");
        assert_eq!(rows.len(), 1, "{name}");
        reader.close().await.expect("close");
        table.write(2, batch("a", "2")).await.expect("write");
        table.flush().await.expect("flush");
        table.close().await.expect("close");
    }
}
