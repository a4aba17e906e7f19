//! One life of a daemon over a store that outlives it: its runtime, its clock, its home.
//!
//! A crash drops the runtime with every task in it; what reached the store stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use object_store::ObjectStore;
use object_store::path::Path;
use tokio::runtime::Runtime;
use tokio::time::{Duration, Instant};
use yadokari_fs::home::*;
use yadokari_store::fault::{FaultControl, FaultPlan, FaultStore};

/// The wall clock of a simulation: whoever runs it says what time it is.
#[derive(Debug, Default)]
pub struct HandClock {
    ticks: AtomicI64,
    lives: AtomicU64,
}

impl HandClock {
    pub fn tick(&self) -> Time {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        self.now()
    }
}

impl Clock for HandClock {
    fn now(&self) -> Time {
        Time { sec: 1_700_000_000 + self.ticks.load(Ordering::Relaxed), nsec: 7 }
    }
}

/// How a life is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub cached_inodes_max: usize,
    pub data_cache_bytes: u64,
    pub dirty_bytes_max: u64,
}

pub const SMALL: Setting =
    Setting { cached_inodes_max: 4, data_cache_bytes: 300 << 10, dirty_bytes_max: 4 << 20 };
pub const ROOMY: Setting =
    Setting { cached_inodes_max: 10_000, data_cache_bytes: 32 << 20, dirty_bytes_max: 64 << 20 };

pub struct Life {
    pub home: Home,
    pub clients: [ClientId; 2],
    pub control: FaultControl,
    began: Instant,
    runtime: Runtime,
}

pub fn quiet_runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime")
}

impl Life {
    pub fn begin(
        objects: &Arc<dyn ObjectStore>,
        clock: &Arc<HandClock>,
        quota: Quota,
        setting: Setting,
        plan: FaultPlan,
    ) -> Life {
        let runtime = quiet_runtime();
        let store = FaultStore::new(Arc::clone(objects), plan);
        let control = store.control().clone();
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        let config = Config {
            cached_inodes_max: setting.cached_inodes_max,
            data_cache_bytes: setting.data_cache_bytes,
            dirty_bytes_max: setting.dirty_bytes_max,
            compute_inline: true,
            ..Config::default()
        };
        let open = OpenHome {
            name: "alice".into(),
            data: Arc::clone(&store),
            meta: store,
            prefix: Path::from("homes/alice"),
            quota,
            root_uid: 1000,
            root_gid: 1000,
            root_perm: 0o700,
            shared: Shared::with_clock(config, Arc::clone(clock) as Arc<dyn Clock>),
            // A number of its own: names that the tables make up must differ from life to life.
            tenure: std::sync::Arc::new(yadokari_fs::home::Undisputed),
            seed: Some(clock.lives.fetch_add(1, Ordering::Relaxed)),
        };
        let (home, began) =
            runtime.block_on(async { (Home::open(open).await.expect("opens"), Instant::now()) });
        let clients = [home.attach(), home.attach()];
        Life { home, clients, control, began, runtime }
    }

    pub fn run<T>(&self, op: impl Future<Output = T>) -> T {
        self.runtime.block_on(op)
    }

    /// Milliseconds since it began.
    pub fn age(&self) -> u64 {
        self.run(async { self.began.elapsed().as_millis() as u64 })
    }

    pub fn wait(&self, ms: u64) {
        self.run(async { tokio::time::sleep(Duration::from_millis(ms)).await });
    }

    /// The end without a word.
    pub fn crash(self) {
        self.control.crash();
        drop(self.home);
        drop(self.runtime);
    }
}
