//! Acknowledged data that is not in the store yet, and the budget that bounds it.
//!
//! A write waits for room in the budget before it is acknowledged; the room comes back when the
//! last holder of its bytes lets go (written to the store, overwritten, cut off). One home may
//! take half of the whole budget, so that a home whose store hangs does not stop the others,
//! and every home may take a little whatever the others do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::holds::Hold;
use super::record::Place;

/// What a home may always hold, even while others use the whole budget.
const HOME_BYTES_MIN: u64 = 2 << 20;
/// Small writes that follow one another share one buffer up to this size.
pub const BUFFER_BYTES_MAX: usize = 128 << 10;

/// Room for dirty data over all homes of the process.
#[derive(Debug)]
pub struct Budget {
    max: u64,
    used: AtomicU64,
    freed: Notify,
}

impl Budget {
    /// Room for `max` bytes.
    #[must_use]
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { max, used: AtomicU64::new(0), freed: Notify::new() })
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// One home's part of the budget.
#[derive(Debug)]
pub struct HomeBudget {
    shared: Arc<Budget>,
    used: AtomicU64,
}

impl HomeBudget {
    /// A home's part of `shared`.
    #[must_use]
    pub fn new(shared: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { shared, used: AtomicU64::new(0) })
    }

    /// Bytes that this home holds.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// True when data should go to the store now to make room.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        let (own, all) = (self.used(), self.shared.used());
        own > self.shared.max / 4 || (all > self.shared.max / 2 && own > HOME_BYTES_MIN / 2)
    }

    fn fits(&self, bytes: u64) -> bool {
        let own = self.used() + bytes;
        own <= HOME_BYTES_MIN
            || (own <= self.shared.max / 2 && self.shared.used() + bytes <= self.shared.max)
            || self.used() == 0
    }

    /// Takes room without asking: for what was admitted already.
    #[must_use]
    pub fn take(self: &Arc<Self>, bytes: u64) -> Grant {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.shared.used.fetch_add(bytes, Ordering::Relaxed);
        Grant { budget: Arc::clone(self), bytes }
    }

    /// Waits until `bytes` fit. `tight` is called once before the first wait.
    pub async fn admit(self: &Arc<Self>, bytes: u64, tight: impl FnOnce()) -> Grant {
        if self.fits(bytes) {
            return self.take(bytes);
        }
        tight();
        loop {
            let freed = self.shared.freed.notified();
            if self.fits(bytes) {
                return self.take(bytes);
            }
            freed.await;
        }
    }
}

/// Room that was taken; dropping it gives it back.
#[derive(Debug)]
pub struct Grant {
    budget: Arc<HomeBudget>,
    bytes: u64,
}

impl Grant {
    /// Joins another grant of the same home to this one.
    pub fn join(&mut self, mut other: Grant) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
            self.budget.shared.used.fetch_sub(self.bytes, Ordering::Relaxed);
            self.budget.shared.freed.notify_waiters();
        }
    }
}

/// Bytes of one or several writes that followed one another.
#[derive(Debug)]
pub struct Buffer {
    data: Data,
    grant: Option<Grant>,
}

#[derive(Debug)]
enum Data {
    Shared(Bytes),
    Own(Vec<u8>),
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        match &self.data {
            Data::Shared(bytes) => bytes,
            Data::Own(vec) => vec,
        }
    }
}

impl Buffer {
    /// Keeps `bytes` as they are; `None`: they are bounded elsewhere.
    #[must_use]
    pub fn new(bytes: Bytes, grant: Option<Grant>) -> Arc<Self> {
        Arc::new(Self { data: Data::Shared(bytes), grant })
    }

    /// Appends in place where nobody else looks at the buffer and it stays small.
    /// Gives the grant back where that cannot be done.
    ///
    /// # Errors
    /// The grant, unused.
    pub fn append(this: &mut Arc<Self>, bytes: &[u8], grant: Grant) -> Result<(), Grant> {
        if this.as_ref().as_ref().len() + bytes.len() > BUFFER_BYTES_MAX {
            return Err(grant);
        }
        let Some(buffer) = Arc::get_mut(this) else { return Err(grant) };
        if let Data::Shared(shared) = &buffer.data {
            let mut own = Vec::with_capacity((shared.len() + bytes.len()).next_power_of_two());
            own.extend_from_slice(shared);
            buffer.data = Data::Own(own);
        }
        if let Data::Own(own) = &mut buffer.data {
            own.extend_from_slice(bytes);
        }
        match &mut buffer.grant {
            Some(own) => own.join(grant),
            none => *none = Some(grant),
        }
        Ok(())
    }
}

/// A view of a buffer that keeps it alive.
#[must_use]
pub fn slice(buffer: &Arc<Buffer>, at: u32, len: u64) -> Bytes {
    struct Owner(Arc<Buffer>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.as_ref().as_ref()
        }
    }
    let at = at as usize;
    let len = usize::try_from(len).expect("a part of a buffer in memory");
    Bytes::from_owner(Owner(Arc::clone(buffer))).slice(at..at + len)
}

/// Consecutive slices of memory that together are a piece's content.
pub type Slices = SmallVec<[Bytes; 1]>;

/// A piece of a file on its way into the store: at most one chunk. Once placed, its content is
/// durable (or travels in the transaction) and the memory is given back.
#[derive(Debug)]
pub struct Piece {
    /// Bytes.
    pub len: u32,
    slices: Mutex<Slices>,
    placed: OnceLock<(Place, Option<Hold>)>,
    changed: Notify,
}

impl Piece {
    /// A piece whose content is in memory.
    #[must_use]
    pub fn new(len: u32, slices: Slices) -> Arc<Self> {
        Arc::new(Self {
            len,
            slices: Mutex::new(slices),
            placed: OnceLock::new(),
            changed: Notify::new(),
        })
    }

    /// A piece that names what is in the store already; `hold` keeps that alive.
    #[must_use]
    pub fn placed_at(len: u32, place: Place, hold: Hold) -> Arc<Self> {
        let piece = Self::new(len, Slices::new());
        piece.set_place(place, Some(hold));
        piece
    }

    /// The content, while it is in memory.
    #[must_use]
    pub fn slices(&self) -> Option<Slices> {
        let slices = self.slices.lock();
        (!slices.is_empty()).then(|| slices.clone())
    }

    /// Says where the content is now and lets the memory go.
    pub fn set_place(&self, place: Place, hold: Option<Hold>) {
        if self.placed.set((place, hold)).is_ok() {
            self.slices.lock().clear();
            self.changed.notify_waiters();
        }
    }

    /// Where the content is, once it is there.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.placed.get().map(|(place, _)| *place)
    }

    /// Waits until the piece is placed.
    pub async fn wait_placed(&self) -> Place {
        loop {
            let changed = self.changed.notified();
            if let Some(place) = self.place() {
                return place;
            }
            changed.await;
        }
    }
}
