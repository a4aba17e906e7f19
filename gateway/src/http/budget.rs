//! One budget of bytes over all transfers.
//!
//! Every transfer may hold one small piece of its own; whatever more it holds comes out of the
//! budget. So memory is bounded by the budget plus one small piece per connection, and nobody can
//! starve anybody: under pressure transfers go on with small pieces, and with plenty of room they
//! use large ones, which stores like better.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The piece that needs no budget: what hyper reads at once, more or less.
pub const PIECE_BYTES_MIN: usize = 64 << 10;
/// Permits are counted in units, as a semaphore counts in 32 bits per acquisition.
const UNIT_BYTES: usize = 4 << 10;

/// The bytes that all transfers together may hold.
#[derive(Clone, Debug)]
pub struct Budget {
    units: Arc<Semaphore>,
    total: usize,
}

/// Bytes taken out of the budget; they return when it is dropped.
#[derive(Debug)]
pub struct Share {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let total = usize::try_from(bytes).unwrap_or(usize::MAX) / UNIT_BYTES;
        let total = total.min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(total)), total }
    }

    /// Takes as much of `wanted` as is free now, at least a half of it; none means pressure.
    #[must_use]
    pub fn try_take(&self, wanted: usize) -> Option<Share> {
        let mut units = u32::try_from(wanted.div_ceil(UNIT_BYTES)).ok()?;
        let least = units.div_ceil(2);
        loop {
            if let Ok(permit) = Arc::clone(&self.units).try_acquire_many_owned(units) {
                return Some(Share { permit });
            }
            if units == least {
                return None;
            }
            units = least;
        }
    }

    /// How large the next piece of a transfer should be: a fair part of what is free.
    #[must_use]
    pub fn piece(&self, max: usize) -> usize {
        const FAIR: usize = 4;
        let free = self.units.available_permits() * UNIT_BYTES;
        (free / FAIR).clamp(PIECE_BYTES_MIN, max.max(PIECE_BYTES_MIN))
    }

    /// Bytes in use, for metrics.
    #[must_use]
    pub fn used(&self) -> u64 {
        ((self.total - self.units.available_permits()) * UNIT_BYTES) as u64
    }
}

impl Share {
    /// Bytes that it covers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.permit.num_permits() * UNIT_BYTES
    }

    /// Content that gives the share back when the last of it has been sent.
    #[must_use]
    pub fn guard(self, bytes: Bytes) -> Bytes {
        struct Guarded(Bytes, #[expect(dead_code, reason = "held until the bytes go")] Share);
        impl AsRef<[u8]> for Guarded {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        Bytes::from_owner(Guarded(bytes, self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_returns_with_the_last_byte_sent() {
        let budget = Budget::new(1 << 20);
        let share = budget.try_take(512 << 10).unwrap();
        assert_eq!(budget.used(), 512 << 10);
        let bytes = share.guard(Bytes::from_static(b"abc"));
        let slice = bytes.slice(1..);
        drop(bytes);
        assert_eq!(budget.used(), 512 << 10);
        drop(slice);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn pieces_shrink_under_pressure_and_never_below_the_least() {
        let budget = Budget::new(8 << 20);
        assert_eq!(budget.piece(1 << 20), 1 << 20);
        let mut held = Vec::new();
        while let Some(share) = budget.try_take(1 << 20) {
            held.push(share);
        }
        assert!(budget.used() <= 8 << 20);
        assert_eq!(budget.piece(1 << 20), PIECE_BYTES_MIN);
    }
}
