//! These checks over memory and files.

use std::sync::Arc;

use yadokari_store::{Store, StoreOptions};

use super::{Churn, churn, stall_everywhere};

fn usual(seed: u64) -> Churn {
    Churn { seed, instances: 3, actors: 4, steps: 25, fault: 0.02 }
}

/// Paused: pauses and delays take no time, and a failure replays.
#[tokio::test(start_paused = true)]
async fn whatever_instances_do_at_once_under_faults_comes_out_whole() {
    for seed in 0..12 {
        println!("seed {seed}");
        churn(&Store::memory(), usual(seed)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_instances_do_at_once_without_faults_comes_out_whole() {
    for seed in 100..106 {
        println!("seed {seed}");
        churn(&Store::memory(), Churn { fault: 0.0, ..usual(seed) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_out_whole_on_files_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", directory.path().display()).parse().expect("a URL");
    let store = Store::open(&url, &StoreOptions::default()).await.expect("a store");
    println!("seed 7");
    churn(&store, Churn { actors: 3, steps: 12, ..usual(7) }).await;
}

#[tokio::test]
async fn a_collection_that_stops_anywhere_harms_nobody_and_nobody_harms_it() {
    let runs = stall_everywhere(|| async { Store::from_one(Arc::new(in_memory())) }).await;
    println!("{runs} runs");
    assert!(runs > 500, "{runs}");
}

fn in_memory() -> object_store::memory::InMemory {
    object_store::memory::InMemory::new()
}
