//! Volume numbers: what a mount puts in front of the inode numbers of a home.
//!
//! What always holds: a number is given out once in the life of a store, whatever fails. One
//! whose home was not made after all is lost, which is cheap: there are sixteen million.

use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use yadokari_store::head::{HeadError, create_head, find_head, swap_head};

use super::error::{HomesError, Result};

/// Version of the format.
const VERSION: u8 = 1;
/// The largest number: an inode number of 64 bits leaves 24 beside a home's own 40.
const VOLUME_MAX: u32 = (1 << 24) - 1;
/// The first: 0 is the mount's own directory.
const VOLUME_MIN: u32 = 1;
/// Others who take a number at the same time, before one gives up.
const RACES_MAX: usize = 256;

#[derive(Serialize, Deserialize)]
struct Counter {
    version: u8,
    /// Given out next.
    next: u32,
}

/// Takes a number for `home`.
///
/// # Errors
/// `Unavailable`, `Corrupt`, `Full`.
pub(super) async fn take(meta: &dyn ObjectStore, home: &str) -> Result<u32> {
    take_many(meta, home, 1).await
}

/// Takes `count` numbers that follow each other; gives the first.
///
/// # Errors
/// `Unavailable`, `Corrupt`, `Full`.
pub(super) async fn take_many(meta: &dyn ObjectStore, home: &str, count: u32) -> Result<u32> {
    let path = Path::from_iter(["meta", "volumes"]);
    for _ in 0..RACES_MAX {
        let found = find_head(meta, &path).await.map_err(|error| HomesError::head(home, error))?;
        let volume = match &found {
            Some(head) => decode(home, &head.data)?,
            None => VOLUME_MIN,
        };
        if volume.saturating_add(count.max(1) - 1) > VOLUME_MAX {
            let why = "all volume numbers of the store are used; use another store";
            return Err(HomesError::Full { home: home.to_owned(), why });
        }
        let counter = Counter { version: VERSION, next: volume + count };
        let data = serde_json::to_vec(&counter).expect("a record of plain values is JSON");
        let taken = match &found {
            Some(head) => swap_head(meta, &path, &head.version, &data).await,
            None => create_head(meta, &path, &data).await,
        };
        match taken {
            Ok(_) => return Ok(volume),
            Err(HeadError::Conflict(_) | HeadError::Exists(_)) => {}
            Err(error) => return Err(HomesError::head(home, error)),
        }
    }
    Err(HomesError::unavailable(home, "too many homes are made at the same time"))
}

fn decode(home: &str, data: &[u8]) -> Result<u32> {
    let corrupt = |why: String| HomesError::Corrupt { home: home.to_owned(), why };
    let counter: Counter = serde_json::from_slice(data)
        .map_err(|error| corrupt(format!("the counter of volumes: {error}")))?;
    match counter.version {
        VERSION => Ok(counter.next.max(VOLUME_MIN)),
        other => Err(corrupt(format!("the counter of volumes has version {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn numbers_that_are_taken_together_differ() {
        let store = InMemory::new();
        let takes = (0..20).map(|_| take(&store, "ada"));
        let mut taken = futures::future::try_join_all(takes).await.unwrap();
        taken.sort_unstable();
        assert_eq!(taken, (1..=20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn the_last_number_is_24_bits_and_none_follows() {
        let store = InMemory::new();
        let path = Path::from_iter(["meta", "volumes"]);
        let data = serde_json::to_vec(&Counter { version: VERSION, next: VOLUME_MAX }).unwrap();
        create_head(&store, &path, &data).await.unwrap();
        assert_eq!(take(&store, "ada").await.unwrap(), 0xff_ffff);
        assert!(matches!(take(&store, "ada").await, Err(HomesError::Full { .. })));
    }
}
