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

/// The folder of the home.
pub const PREFIX: &str = "homes/alice";

/// The wall clock of a simulation: whoever runs it says what time it is.
///
/// Every life has another one: some are behind the life before.
#[derive(Debug, Default)]
pub struct HandClock {
    ticks: AtomicI64,
    lives: AtomicU64,
}

impl HandClock {
    pub fn tick(&self) -> Time {
        self.advance(1)
    }

    /// Time passes.
    pub fn advance(&self, seconds: i64) -> Time {
        self.ticks.fetch_add(seconds, Ordering::Relaxed);
        self.now()
    }

    /// Another node serves the home, by a clock of its own.
    fn new_life(&self) -> u64 {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        self.ticks.fetch_add((life as i64 * 7919 % 7 - 3) * 100, Ordering::Relaxed);
        life
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

fn open_home(
    store: Arc<dyn ObjectStore>,
    clock: &Arc<HandClock>,
    quota: Quota,
    setting: Setting,
) -> OpenHome {
    let config = Config {
        cached_inodes_max: setting.cached_inodes_max,
        data_cache_bytes: setting.data_cache_bytes,
        dirty_bytes_max: setting.dirty_bytes_max,
        compute_inline: true,
        ..Config::default()
    };
    OpenHome {
        name: "alice".into(),
        data: Arc::clone(&store),
        meta: store,
        prefix: Path::from(PREFIX),
        quota,
        root_uid: 1000,
        root_gid: 1000,
        root_perm: 0o700,
        shared: Shared::with_clock(config, Arc::clone(clock) as Arc<dyn Clock>),
        tenure: Arc::new(Undisputed),
        // A number of its own: names that the tables make up must differ from life to life.
        seed: Some(clock.new_life()),
    }
}

impl Life {
    pub fn begin(
        objects: &Arc<dyn ObjectStore>,
        clock: &Arc<HandClock>,
        quota: Quota,
        setting: Setting,
        plan: FaultPlan,
    ) -> Life {
        Self::try_begin(objects, clock, quota, setting, plan).expect("opens")
    }

    /// Begins a life, where the home can be opened.
    pub fn try_begin(
        objects: &Arc<dyn ObjectStore>,
        clock: &Arc<HandClock>,
        quota: Quota,
        setting: Setting,
        plan: FaultPlan,
    ) -> Result<Life> {
        let runtime = quiet_runtime();
        let store = FaultStore::new(Arc::clone(objects), plan);
        let control = store.control().clone();
        let open = open_home(Arc::new(store), clock, quota, setting);
        let limit = Duration::from_secs(600);
        let (home, began) = runtime.block_on(async {
            let opened = tokio::time::timeout(limit, Home::open(open)).await;
            let opened = opened.map_err(|_| Error::unavailable("opening takes for ever"));
            opened.flatten().map(|home| (home, Instant::now()))
        })?;
        let clients = [home.attach(), home.attach()];
        Ok(Life { home, clients, control, began, runtime })
    }

    /// A life under a plan that ends it while it recovers, or a while later; true where the
    /// plan ended it.
    pub fn die(
        objects: &Arc<dyn ObjectStore>,
        clock: &Arc<HandClock>,
        quota: Quota,
        setting: Setting,
        plan: FaultPlan,
    ) -> bool {
        let runtime = quiet_runtime();
        let store = FaultStore::new(Arc::clone(objects), plan);
        let control = store.control().clone();
        let open = open_home(Arc::new(store), clock, quota, setting);
        runtime.block_on(async {
            let open = tokio::time::timeout(Duration::from_secs(20), Home::open(open));
            let _home = open.await;
            tokio::time::sleep(Duration::from_secs(20)).await;
        });
        let died = control.crashed();
        control.crash();
        died
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
