//! How many requests a caller may have at the same time, so that one who sends thousands leaves
//! room for the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Who is counted: by name, or by address those who have none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    Name(Arc<str>),
    Address(IpAddr),
}

/// Counters of requests that run; callers with none take no memory.
#[derive(Debug)]
pub struct Admission {
    max: usize,
    shards: [Mutex<HashMap<Whose, usize>>; SHARDS],
}

/// So that callers do not wait for each other's counters.
const SHARDS: usize = 16;

/// One admitted request, until dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    whose: Whose,
}

impl Admission {
    /// At most `max` per caller.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, shards: std::array::from_fn(|_| Mutex::default()) })
    }

    /// Lets one more in; `None` when the caller has too many.
    #[must_use]
    pub fn admit(self: &Arc<Self>, whose: Whose) -> Option<Admitted> {
        let mut counts = self.shard(&whose).lock();
        let count = counts.entry(whose.clone()).or_insert(0);
        if *count >= self.max {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Admitted { admission: Arc::clone(self), whose })
    }

    fn shard(&self, whose: &Whose) -> &Mutex<HashMap<Whose, usize>> {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(whose);
        &self.shards[usize::try_from(hash % SHARDS as u64).expect("is small")]
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.shard(&self.whose).lock();
        if let Some(count) = counts.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_with_many_requests_leaves_room_for_others() {
        let admission = Admission::new(2);
        let ada = || Whose::Name("ada".into());
        let first = admission.admit(ada()).unwrap();
        let _second = admission.admit(ada()).unwrap();
        assert!(admission.admit(ada()).is_none());
        assert!(admission.admit(Whose::Address([127, 0, 0, 1].into())).is_some());
        drop(first);
        assert!(admission.admit(ada()).is_some());
    }

    #[test]
    fn who_has_no_requests_takes_no_memory() {
        let admission = Admission::new(2);
        drop(admission.admit(Whose::Name("ada".into())));
        assert!(admission.shards.iter().all(|shard| shard.lock().is_empty()));
    }
}
