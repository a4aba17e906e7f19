//! Users of this machine, as its name service knows them.
//!
//! `getent` is asked in a process of its own, which can be given up when a dead LDAP server makes
//! the name service hang; answers are remembered for a minute. Only people are found: ids within
//! the range of `login.defs`, with a name, and not in anybody's range of subordinate ids.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use tokio::process::Command;
use tokio::sync::Semaphore;

/// How long an answer is waited for.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a user is remembered; afterwards a new group counts.
const PERSON_KEPT: Duration = Duration::from_secs(60);
/// How long it is remembered that there is no such user, or no answer.
const NOBODY_KEPT: Duration = Duration::from_secs(5);
/// Processes at the same time.
const PROCESSES_MAX: usize = 4;
/// Users that are remembered.
const KEPT_MAX: usize = 10_000;
/// Debian's and everybody's defaults.
const UIDS_DEFAULT: RangeInclusive<u32> = 1000..=60_000;

/// A person with an account here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Names of their groups.
    pub groups: BTreeSet<String>,
}

type Answer = Result<Option<Arc<Person>>, String>;

/// The people of this machine.
#[derive(Debug)]
pub struct Accounts {
    uids: RangeInclusive<u32>,
    processes: Semaphore,
    kept: Cache<String, (Instant, Answer)>,
}

impl Accounts {
    /// People with ids in `uids`.
    #[must_use]
    pub fn of_system(uids: RangeInclusive<u32>) -> Self {
        let processes = Semaphore::new(PROCESSES_MAX);
        Self { uids, processes, kept: Cache::new(KEPT_MAX) }
    }

    /// The person with this id.
    ///
    /// # Errors
    /// When the name service does not answer.
    pub async fn by_uid(&self, uid: u32) -> Answer {
        if !self.uids.contains(&uid) {
            return Ok(None);
        }
        self.find(&uid.to_string()).await
    }

    /// The person of this name.
    ///
    /// # Errors
    /// When the name service does not answer.
    pub async fn by_name(&self, name: &str) -> Answer {
        // getent takes a number for an id, and an option for an option.
        let wrong = |c: char| c.is_control() || matches!(c, ':' | '/');
        if name.is_empty() || name.bytes().all(|b| b.is_ascii_digit()) || name.contains(wrong) {
            return Ok(None);
        }
        self.find(name).await
    }

    async fn find(&self, key: &str) -> Answer {
        if let Some((until, answer)) = self.kept.get(key)
            && Instant::now() < until
        {
            return answer;
        }
        let answer = match tokio::time::timeout(ANSWER_WAIT_MAX, self.ask(key)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("the name service does not answer about {key}")),
        };
        let kept = if matches!(answer, Ok(Some(_))) { PERSON_KEPT } else { NOBODY_KEPT };
        self.kept.insert(key.to_owned(), (Instant::now() + kept, answer.clone()));
        answer
    }

    async fn ask(&self, key: &str) -> Answer {
        let _process = self.processes.acquire().await.map_err(|error| error.to_string())?;
        let found = getent(&["passwd", "--", key]).await?;
        let Some(line) = found.lines().next().and_then(passwd_line) else { return Ok(None) };
        let PasswdLine { name, uid, gid } = line;
        if !self.uids.contains(&uid) || is_subordinate(uid) {
            return Ok(None);
        }
        let ids = getent(&["initgroups", "--", &name]).await?;
        // The primary group is not among those.
        let mut query = vec!["group", "--", &gid];
        query.extend(ids.split_ascii_whitespace().skip(1));
        let listed = getent(&query).await?;
        let names = listed.lines().filter_map(|line| line.split(':').next());
        let groups = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Ok(Some(Arc::new(Person { name, uid, groups })))
    }
}

/// The ids of people: what the configuration says, else `login.defs`, else the usual ones.
#[must_use]
pub fn people(uid_min: Option<u32>, uid_max: Option<u32>) -> RangeInclusive<u32> {
    let text = std::fs::read_to_string("/etc/login.defs").unwrap_or_default();
    let min = uid_min.or_else(|| login_defs(&text, "UID_MIN")).unwrap_or(*UIDS_DEFAULT.start());
    let max = uid_max.or_else(|| login_defs(&text, "UID_MAX")).unwrap_or(*UIDS_DEFAULT.end());
    // Root is nobody's ordinary user, whatever a file says.
    min.max(1)..=max
}

fn login_defs(text: &str, key: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(key)).then(|| words.next()?.parse().ok())?
    })
}

/// Somebody's subordinate id: what runs under it is a container's user, nobody of this machine.
fn is_subordinate(uid: u32) -> bool {
    let text = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    text.lines().filter_map(subuid_line).any(|range| range.contains(&u64::from(uid)))
}

fn subuid_line(line: &str) -> Option<std::ops::Range<u64>> {
    let mut fields = line.split(':').skip(1);
    let first: u64 = fields.next()?.trim().parse().ok()?;
    let count: u64 = fields.next()?.trim().parse().ok()?;
    Some(first..first.checked_add(count)?)
}

/// What of a line of passwd(5) is needed.
#[derive(Debug, PartialEq, Eq)]
struct PasswdLine {
    name: String,
    uid: u32,
    gid: String,
}

fn passwd_line(line: &str) -> Option<PasswdLine> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next().filter(|gid| gid.parse::<u32>().is_ok())?.to_owned();
    Some(PasswdLine { name, uid, gid })
}

/// What getent prints; nothing when it finds nothing.
async fn getent(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("getent");
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| format!("getent: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_system_are_read() {
        let text = "# UID_MIN 5\nUID_MIN\t\t\t 1000\nUID_MAX 60000\n";
        assert_eq!(login_defs(text, "UID_MIN"), Some(1000));
        assert_eq!(login_defs(text, "SYS_UID_MIN"), None);
        assert_eq!(subuid_line("ada:100000:65536"), Some(100_000..165_536));
        assert_eq!(subuid_line("nonsense"), None);
        let line = passwd_line("ada:x:1001:1002::/home/ada:/bin/sh");
        let ada = PasswdLine { name: "ada".into(), uid: 1001, gid: "1002".into() };
        assert_eq!(line, Some(ada));
        assert_eq!(people(Some(0), Some(9)), 1..=9);
    }

    #[tokio::test]
    async fn root_and_who_has_no_name_are_nobody() {
        let accounts = Accounts::of_system(people(None, None));
        assert_eq!(accounts.by_uid(0).await, Ok(None));
        assert_eq!(accounts.by_name("root").await, Ok(None));
        assert_eq!(accounts.by_uid(59_999).await, Ok(None));
        for name in ["", "0", "-s", "no such:user", "../x"] {
            assert_eq!(accounts.by_name(name).await, Ok(None), "{name}");
        }
    }
}
