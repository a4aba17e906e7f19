//! Threads for work that blocks or computes, with a bound on how many there are.
//!
//! What always holds: no more threads live than the pool was made with, however fast work comes
//! and goes. The runtime's own pool does not promise that even to callers that bound what runs at
//! once: on a busy machine the thread that ended one piece of work is not idle yet when the next
//! one comes, and another thread is made, each with its stack and its caches.

use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinError;

/// A bounded number of threads; they end when the pool is dropped or has nothing to do for long.
#[derive(Debug)]
pub struct BlockingPool {
    /// Never driven: it only has the threads. There until the pool is dropped.
    runtime: Option<Runtime>,
    /// So that work whose waiter gave up before its turn is not done.
    turns: Arc<Semaphore>,
}

impl BlockingPool {
    /// At most `threads` threads, called `name` in the lists of processes.
    #[must_use]
    pub fn new(name: &str, threads: usize) -> Self {
        let runtime = Builder::new_current_thread()
            .thread_name(name)
            .max_blocking_threads(threads)
            .build()
            .expect("a runtime without drivers asks the system for nothing");
        Self { runtime: Some(runtime), turns: Arc::new(Semaphore::new(threads)) }
    }

    /// Runs `work` on one of the threads when its turn comes. Once it runs, it runs to its end
    /// whether somebody waits or not.
    ///
    /// # Errors
    /// When `work` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        let runtime = self.runtime.as_ref().expect("there until the pool is dropped");
        let run = runtime.handle().spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        run.await
    }
}

impl Drop for BlockingPool {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Duration;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn however_fast_work_comes_there_are_no_more_threads() {
        let pool = Arc::new(BlockingPool::new("few", 3));
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let pool = Arc::clone(&pool);
            callers.spawn(async move {
                let mut seen = HashSet::new();
                for _ in 0..500 {
                    seen.insert(pool.run(|| std::thread::current().id()).await.expect("it runs"));
                }
                seen
            });
        }
        let mut seen = HashSet::new();
        while let Some(more) = callers.join_next().await {
            seen.extend(more.expect("a caller ends"));
        }
        assert!(seen.len() <= 3, "{} threads", seen.len());
    }

    #[tokio::test]
    async fn who_gives_up_before_the_turn_comes_has_nothing_done() {
        let pool = Arc::new(BlockingPool::new("one", 1));
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run(move || wait.recv()).await }
        });
        tokio::task::yield_now().await;
        let second = pool.run(|| panic!("nobody waits for it"));
        assert!(tokio::time::timeout(Duration::from_millis(10), second).await.is_err());
        drop(go);
        assert!(first.await.expect("it ends").expect("it runs").is_err());
        assert_eq!(pool.run(|| 7).await.expect("it runs"), 7);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_pool_goes_on() {
        let pool = BlockingPool::new("one", 1);
        assert!(pool.run(|| panic!("on purpose")).await.is_err());
        assert_eq!(pool.run(|| 7).await.expect("it runs"), 7);
    }
}
