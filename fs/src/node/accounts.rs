//! Who may have a home: users whom the system's name service knows, within a range of ids.
//!
//! A name service can hang (a dead LDAP server), so it is asked in threads of its own, few of
//! them, and only for a limited time. Only the making of a home asks it: an existing home needs
//! no name service.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use crate::home::{Error, Result};

/// How long an answer is waited for.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a user is remembered.
const USER_KEPT: Duration = Duration::from_secs(60);
/// How long it is remembered that there is no such user.
const NO_USER_KEPT: Duration = Duration::from_secs(5);
/// Threads that may hang in the name service at once.
const THREADS_MAX: usize = 8;
/// Answers that are remembered.
const KEPT_MAX: usize = 10_000;
/// Largest record of a user that is read.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
}

type Ask = dyn Fn(&CStr) -> Option<Account> + Send + Sync;

/// The users of the system.
pub struct Accounts {
    ask: Arc<Ask>,
    uids: RangeInclusive<u32>,
    threads: Arc<Semaphore>,
    kept: Mutex<HashMap<String, (Instant, Option<Account>)>>,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").field("uids", &self.uids).finish_non_exhaustive()
    }
}

impl Accounts {
    /// The system's users whose ids are in `uids`.
    #[must_use]
    pub fn of_system(uids: RangeInclusive<u32>) -> Self {
        Self::new(uids, ask_system)
    }

    /// Users that `ask` knows.
    pub fn new(
        uids: RangeInclusive<u32>,
        ask: impl Fn(&CStr) -> Option<Account> + Send + Sync + 'static,
    ) -> Self {
        let threads = Arc::new(Semaphore::new(THREADS_MAX));
        Self { ask: Arc::new(ask), uids, threads, kept: Mutex::default() }
    }

    /// The user called exactly `name` who may have a home.
    ///
    /// # Errors
    /// `Unavailable` where the name service does not answer in time.
    pub async fn find(&self, name: &str) -> Result<Option<Account>> {
        if let Some((since, account)) = self.kept.lock().get(name)
            && since.elapsed() < if account.is_some() { USER_KEPT } else { NO_USER_KEPT }
        {
            return Ok(account.clone());
        }
        let late = || Error::unavailable(format!("the name service does not answer about {name}"));
        let answer = tokio::time::timeout(ANSWER_WAIT_MAX, self.ask(name)).await;
        let account = answer.map_err(|_| late())?.ok_or_else(late)?;
        let account = account.filter(|account| self.uids.contains(&account.uid));
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(name.to_owned(), (Instant::now(), account.clone()));
        Ok(account)
    }

    /// The answer, or `None` where no thread could ask.
    async fn ask(&self, name: &str) -> Option<Option<Account>> {
        let Ok(asked) = CString::new(name) else {
            return Some(None);
        };
        let thread = Arc::clone(&self.threads).acquire_owned().await.ok()?;
        let (answer, answered) = oneshot::channel();
        let ask = Arc::clone(&self.ask);
        // Not a thread of the runtime, whose end would wait for one that hangs.
        let spawned = std::thread::Builder::new().name("accounts".into()).spawn(move || {
            let _ = answer.send(ask(&asked));
            drop(thread);
        });
        spawned.ok()?;
        answered.await.ok()
    }
}

/// Asks the name service; hangs where it does.
fn ask_system(name: &CStr) -> Option<Account> {
    let mut buffer = vec![0u8; 16 * 1024];
    loop {
        let mut record = std::mem::MaybeUninit::<libc::passwd>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are valid for the call, and the length is the buffer's.
        let failed = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                record.as_mut_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &raw mut found,
            )
        };
        if failed == libc::ERANGE && buffer.len() < RECORD_BYTES_MAX {
            buffer.resize(buffer.len() * 2, 0);
            continue;
        }
        if failed != 0 || found.is_null() {
            return None;
        }
        // SAFETY: a call that found the user filled the record; its name points into `buffer`.
        let (record, known) = unsafe { (&*found, CStr::from_ptr((*found).pw_name)) };
        // Some services ignore case; a home belongs to the exact name.
        let exact = known == name;
        return exact.then_some(Account { uid: record.pw_uid, gid: record.pw_gid });
    }
}

/// The ids of users of people, from login.defs(5), with its own defaults where it says nothing.
#[must_use]
pub fn uids_of_people(login_defs: &Path) -> RangeInclusive<u32> {
    let text = std::fs::read_to_string(login_defs).unwrap_or_default();
    uid_setting(&text, "UID_MIN").unwrap_or(1000)..=uid_setting(&text, "UID_MAX").unwrap_or(60_000)
}

fn uid_setting(text: &str, key: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(key)).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn only_users_in_the_range_may_have_a_home() {
        let accounts = Accounts::new(1000..=60_000, |name| {
            let uid = if name == c"root" { 0 } else { 1001 };
            Some(Account { uid, gid: uid })
        });
        assert_eq!(accounts.find("root").await.unwrap(), None);
        let alice = Account { uid: 1001, gid: 1001 };
        assert_eq!(accounts.find("alice").await.unwrap(), Some(alice));
    }

    #[tokio::test]
    async fn an_answer_is_remembered() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let accounts = Accounts::new(1000..=60_000, |_| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            None
        });
        for _ in 0..3 {
            assert_eq!(accounts.find("nobody").await.unwrap(), None);
        }
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_service_that_hangs_is_given_up() {
        let accounts = Accounts::new(1000..=60_000, |_| {
            std::thread::sleep(Duration::from_secs(60));
            None
        });
        for n in 0..=THREADS_MAX {
            assert!(accounts.find(&format!("user{n}")).await.is_err());
        }
    }

    #[test]
    fn the_range_of_ids_comes_from_login_defs() {
        let text = "# UID_MIN 5\nUID_MIN\t\t 500\nSYS_UID_MAX 99\n";
        assert_eq!(uid_setting(text, "UID_MIN"), Some(500));
        assert_eq!(uid_setting(text, "UID_MAX"), None);
    }
}
