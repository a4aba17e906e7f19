//! Which process on which machine this is, and whether another one of this machine still runs.

use std::fmt;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One life of a process: drawn at random when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation(pub Uuid);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> Self {
        incarnation.0.to_string()
    }
}

impl TryFrom<String> for Incarnation {
    type Error = uuid::Error;

    fn try_from(text: String) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// A process that may own homes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// Name of the node, for people.
    pub node: String,
    /// Which installation of an operating system (`/etc/machine-id`); empty where it has none.
    pub machine: String,
    /// Which boot of its kernel (`/proc/sys/kernel/random/boot_id`); empty where unknown.
    pub boot_id: String,
    /// Which process id namespace: numbers of another one say nothing about ours.
    pub pid_namespace: u64,
    /// Process id in that namespace.
    pub pid: u32,
    /// When it started, in clock ticks since the boot (`/proc/PID/stat`, field 22).
    pub process_start: u64,
    /// Which life of it.
    pub incarnation: Incarnation,
}

impl NodeIdentity {
    /// The running process, on a node that is called `node` (the host name where it is left out).
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn of_this_process(node: Option<String>) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;

        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let stat = fs::read_to_string("/proc/self/stat")?;
        let stat = Stat::parse(&stat).ok_or_else(|| io::Error::other("/proc/self/stat"))?;
        Ok(Self {
            node: node.unwrap_or_else(host),
            machine: line("/etc/machine-id").unwrap_or_default(),
            boot_id: line("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            pid_namespace: fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino()),
            pid: std::process::id(),
            process_start: stat.start,
            incarnation: Incarnation(Uuid::new_v4()),
        })
    }
}

fn line(path: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

/// Whether a process of this machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// It does (stopped counts).
    Runs,
    /// It does not, or its number belongs to another process by now.
    Gone,
    /// Its number is taken, by whom cannot be seen.
    Unknown,
}

/// The seam through which processes of this machine are looked at.
pub trait ProcessProbe: fmt::Debug + Send + Sync + 'static {
    /// The process `pid` of our namespace that started at `start`.
    fn state(&self, pid: u32, start: u64) -> ProcessState;
}

/// The processes that the kernel shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemProcesses;

impl ProcessProbe for SystemProcesses {
    fn state(&self, pid: u32, start: u64) -> ProcessState {
        use rustix::process::{Pid, test_kill_process};

        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            return ProcessState::Unknown;
        };
        // Where /proc hides the processes of others (hidepid), a signal still finds them.
        if test_kill_process(number) == Err(rustix::io::Errno::SRCH) {
            return ProcessState::Gone;
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        match stat.ok().as_deref().and_then(Stat::parse) {
            Some(stat) if stat.start != start || stat.is_dead() => ProcessState::Gone,
            Some(_) => ProcessState::Runs,
            None => ProcessState::Unknown,
        }
    }
}

/// What `/proc/PID/stat` says, as proc_pid_stat(5) has it.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    start: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is a name in parentheses that may hold anything, `)` included.
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        // The state is field 3, the start field 22.
        let start = fields.nth(22 - 4)?.parse().ok()?;
        Some(Self { state, start })
    }

    /// A zombie serves nothing: it only waits for its parent.
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_process_runs() {
        let me = NodeIdentity::of_this_process(None).unwrap();
        assert!(!me.node.is_empty());
        assert_eq!(SystemProcesses.state(me.pid, me.process_start), ProcessState::Runs);
        assert_eq!(SystemProcesses.state(me.pid, me.process_start + 1), ProcessState::Gone);
    }

    #[test]
    fn a_process_that_ended_is_gone_even_as_a_zombie() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let start = Stat::parse(&text).unwrap().start;
        assert_eq!(SystemProcesses.state(pid, start), ProcessState::Runs);
        child.kill().unwrap();
        while SystemProcesses.state(pid, start) != ProcessState::Gone {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.wait().unwrap();
        assert_eq!(SystemProcesses.state(pid, start), ProcessState::Gone);
    }

    #[test]
    fn a_process_name_may_hold_anything() {
        let tail = (0..18).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let text = format!("7 (a) S 1 (b)) T {tail} 4711 0 0");
        assert_eq!(Stat::parse(&text), Some(Stat { state: 'T', start: 4711 }));
    }

    #[test]
    fn an_identity_reads_back() {
        let me = NodeIdentity::of_this_process(Some("n1".into())).unwrap();
        let text = serde_json::to_string(&me).unwrap();
        assert_eq!(serde_json::from_str::<NodeIdentity>(&text).unwrap(), me);
    }
}
