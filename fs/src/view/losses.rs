//! What a daemon acknowledged and could not keep, because another one took the home over.
//!
//! What always holds: whoever syncs an inode whose changes were lost hears of it, and an inode
//! that was made and lost is gone for whoever still has it open: the home may give its number to
//! another file.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::home::{Error, ErrorKind, Ino, Result, Unkept};

/// The kernel does not say through which descriptor a file is synced. From the first that heard
/// of a loss on, the others have so long to hear of it too.
const TOLD_FOR: Duration = Duration::from_secs(10);

/// The losses of one home.
#[derive(Debug, Default)]
pub struct Losses {
    any: AtomicBool,
    lost: Mutex<Lost>,
}

#[derive(Debug, Default)]
struct Lost {
    /// Made and never stored; a kernel still refers to them.
    gone: HashSet<Ino>,
    /// With changes that were not stored, and since when somebody knows.
    unkept: HashMap<Ino, Option<Instant>>,
}

impl Losses {
    /// Notes what an ended home could not keep of the inodes that kernels refer to: nobody else
    /// has a descriptor.
    pub fn note(&self, unkept: &Unkept, referred: &HashSet<Ino>) {
        let mut lost = self.lost.lock();
        lost.gone.extend(referred.iter().filter(|ino| **ino >= unkept.free_from));
        let inodes = unkept.inodes.iter().filter(|ino| referred.contains(ino));
        lost.unkept.extend(inodes.map(|ino| (*ino, None)));
        self.any.store(!lost.gone.is_empty() || !lost.unkept.is_empty(), Ordering::Release);
    }

    /// Whether the inode that a kernel calls `ino` is no more, whoever has the number now.
    #[must_use]
    pub fn is_gone(&self, ino: Ino) -> bool {
        self.any.load(Ordering::Acquire) && self.lost.lock().gone.contains(&ino)
    }

    /// Fails where changes of `ino` were lost that nobody, or somebody just now, was told of.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn check(&self, ino: Ino) -> Result<()> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut lost = self.lost.lock();
        let Some(told) = lost.unkept.get_mut(&ino) else { return Ok(()) };
        if told.get_or_insert_with(Instant::now).elapsed() <= TOLD_FOR {
            let why = "what was written before another daemon took the home over is lost";
            return Err(Error::unavailable(format_args!("inode {ino}: {why}")));
        }
        lost.unkept.remove(&ino);
        Ok(())
    }

    /// Fails for an inode that is gone.
    ///
    /// # Errors
    /// `Stale`.
    pub fn check_gone(&self, ino: Ino) -> Result<()> {
        if self.is_gone(ino) { Err(ErrorKind::Stale.into()) } else { Ok(()) }
    }

    /// The kernel refers to `ino` no more.
    pub fn forget(&self, ino: Ino) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut lost = self.lost.lock();
        lost.gone.remove(&ino);
        lost.unkept.remove(&ino);
        self.any.store(!lost.gone.is_empty() || !lost.unkept.is_empty(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_until_the_kernel_forgets_the_inode() {
        let losses = Losses::default();
        assert!(losses.check(Ino(7)).is_ok());
        let unkept = Unkept { inodes: vec![Ino(7), Ino(9)], free_from: Ino(100) };
        losses.note(&unkept, &HashSet::from([Ino(7), Ino(8)]));
        assert!(losses.check(Ino(7)).is_err() && losses.check(Ino(7)).is_err());
        assert!(losses.check(Ino(8)).is_ok() && losses.check(Ino(9)).is_ok());
        assert!(!losses.is_gone(Ino(7)));
        losses.forget(Ino(7));
        assert!(losses.check(Ino(7)).is_ok());
    }

    #[test]
    fn an_inode_that_was_made_and_lost_is_gone_until_the_kernel_forgets_it() {
        let losses = Losses::default();
        let unkept = Unkept { inodes: vec![Ino(100)], free_from: Ino(100) };
        losses.note(&unkept, &HashSet::from([Ino(99), Ino(100)]));
        assert!(losses.check_gone(Ino(99)).is_ok());
        assert!(matches!(losses.check_gone(Ino(100)), Err(Error(ErrorKind::Stale))));
        losses.forget(Ino(100));
        assert!(losses.check_gone(Ino(100)).is_ok() && losses.check(Ino(100)).is_ok());
    }
}
