//! Time and chance, as the catalogue gets them: through traits, so that a failure replays.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Both clocks.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Milliseconds since 1970, as others see it too. May jump.
    fn wall_ms(&self) -> u64;
    /// Since some moment; never goes back.
    fn monotonic(&self) -> Duration;
}

/// Where random bytes come from.
pub trait Randomness: Debug + Send + Sync + 'static {
    /// 128 bits that nobody can guess.
    fn bytes16(&self) -> [u8; 16];
}

/// The clocks of this machine.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock(Instant::now())
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The generator of this thread, which is fit for secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    fn bytes16(&self) -> [u8; 16] {
        rand::random()
    }
}

/// What the catalogue takes from its surroundings.
#[derive(Clone, Debug)]
pub struct Seams {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Randomness>,
}

impl Default for Seams {
    fn default() -> Self {
        Seams { clock: Arc::new(SystemClock::default()), random: Arc::new(SystemRandomness) }
    }
}
