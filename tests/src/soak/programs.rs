//! Programs that people use: git, rsync, SQLite.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};

use super::{Place, Work, follow, lock};
use crate::{kept, process, tree};

/// Commits to a repository, packs it now and then, and checks it after every kill.
#[derive(Debug, Default)]
pub struct Git {
    commits: Mutex<Vec<(String, Instant)>>,
}

/// Prints the hash of every commit that git acknowledged.
const GIT_WORK: &str = r#"
cd "$1"
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org
export GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@example.org
git init -q -b main .
rm -f .git/*.lock .git/refs/heads/*.lock .git/objects/*.lock
git config core.fsync all; git config core.fsyncMethod fsync; git config gc.auto 0
git fsck --full --no-dangling >&2
git reset -q --hard
for round in $(seq 1000000); do
    mkdir -p src$((round % 7))
    for n in 1 2 3; do echo "$round $n $RANDOM" > src$((round % 7))/file$((round * n % 50)); done
    git add -A
    git commit -q -m "round $round"
    git rev-parse --verify HEAD
    if [ $((round % 50)) = 0 ]; then git gc -q; fi
    read -r -t 0.05 _ || [ $? -gt 128 ] || exit 0
done
"#;

impl Work for Git {
    fn name(&self) -> String {
        "git".into()
    }

    fn work(&self, place: &Place) -> Result<()> {
        let mut command = place.user.command("bash");
        command.args(["-euo", "pipefail", "-c", GIT_WORK, "git"]).arg(&place.dir);
        follow(command, place, |line, heard| {
            lock(&self.commits).push((line.to_owned(), heard));
            Ok(())
        })
    }

    fn check(&self, place: &Place) -> Result<()> {
        let dir = place.dir.display();
        place.user.sh(&format!("cd {dir}; git fsck --full --strict --no-dangling"))?;
        let log = place.user.sh(&format!("cd {dir}; git log --format=%H"))?;
        let there: BTreeSet<&str> = log.lines().collect();
        for (commit, heard) in &*lock(&self.commits) {
            // Git does not sync the directories of its references.
            let lost = place.can_be_lost(*heard);
            kept!(lost || there.contains(commit.as_str()), "commit {commit} is not in the log");
        }
        Ok(())
    }

    fn promised(&self) -> u64 {
        lock(&self.commits).len() as u64
    }
}

/// Inserts rows, each in a transaction of its own.
#[derive(Debug)]
pub struct Sqlite {
    wal: bool,
    rows: Mutex<BTreeSet<u64>>,
}

/// Prints the number of every row that was committed. SQLite takes a commit for done when it has
/// removed the journal and then cannot open the directory to sync that (`unixDelete`), which is
/// what happens when a file system goes away in between: so the directory is synced here again,
/// and a row that is printed is in the store.
const SQLITE_WORK: &str = r#"
import os, select, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
db.execute('pragma journal_mode=' + sys.argv[2])
db.execute('pragma synchronous=extra')
db.execute('create table if not exists t(n integer primary key, text text)')
found = db.execute('pragma integrity_check').fetchall()
assert found == [('ok',)], found
while True:
    with db:
        db.execute('begin immediate')
        row = db.execute('insert into t(text) values (hex(randomblob(200)))').lastrowid
        db.execute("update t set text = 'changed' where n = ?", (row - 100,))
        db.execute('commit')
    directory = os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)
    print(row, flush=True)
    if select.select([sys.stdin], [], [], 0.005)[0]: sys.exit(0)
"#;

impl Sqlite {
    /// With a write-ahead log, or with the older rollback journal.
    #[must_use]
    pub fn new(wal: bool) -> Self {
        Self { wal, rows: Mutex::default() }
    }

    fn mode(&self) -> &'static str {
        if self.wal { "wal" } else { "delete" }
    }
}

impl Work for Sqlite {
    fn name(&self) -> String {
        format!("sqlite-{}", self.mode())
    }

    fn work(&self, place: &Place) -> Result<()> {
        let mut command = place.user.command("python3");
        command.args(["-c", SQLITE_WORK]).arg(place.dir.join("db")).arg(self.mode());
        follow(command, place, |line, _| {
            let row = line.parse().with_context(|| format!("sqlite says {line:?}"))?;
            let new = lock(&self.rows).insert(row);
            kept!(new, "row {row} was committed before and is committed again");
            Ok(())
        })
    }

    fn check(&self, place: &Place) -> Result<()> {
        let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1])
assert db.execute('pragma integrity_check').fetchall() == [('ok',)]
for row in db.execute('select n from t'): print(row[0])";
        let mut command = place.user.command("python3");
        let said = process::ok(command.args(["-c", script]).arg(place.dir.join("db")))?;
        let there: BTreeSet<u64> = said.lines().filter_map(|line| line.parse().ok()).collect();
        let missing: Vec<u64> = lock(&self.rows).difference(&there).copied().collect();
        kept!(missing.is_empty(), "committed rows are missing: {missing:?}");
        Ok(())
    }

    fn promised(&self) -> u64 {
        lock(&self.rows).len() as u64
    }
}

/// Brings a tree that changes all the time to the home, with rsync.
#[derive(Debug, Default)]
pub struct Rsync {
    rounds: AtomicU64,
}

/// Changes the source a little.
const RSYNC_CHANGE: &str = r#"
cd "$1"; mkdir -p src; cd src
for n in 1 2 3 4 5; do
    mkdir -p d$((RANDOM % 20))
    for dir in d*; do
        head -c $((RANDOM * 3)) /dev/urandom > $dir/f$((RANDOM % 30)); break
    done
done
mkdir -p d$((RANDOM % 20)); rm -rf d$((RANDOM % 20)); mkdir -p d7 d8
ln -sf f1 d7/link; truncate -s 3000000 d8/sparse; echo $RANDOM >> d8/grows
"#;

impl Rsync {
    fn bring(place: &Place) -> Result<()> {
        let mut command = place.user.command("rsync");
        command.args(["-aHS", "--fsync", "--delete", "--modify-window=-1"]);
        process::ok(command.arg(place.beside.join("src/")).arg(place.dir.join("src"))).map(drop)
    }
}

impl Work for Rsync {
    fn name(&self) -> String {
        "rsync".into()
    }

    fn work(&self, place: &Place) -> Result<()> {
        while !place.is_over() {
            let mut command = place.user.command("bash");
            command.args(["-euo", "pipefail", "-c", RSYNC_CHANGE, "rsync"]).arg(&place.beside);
            process::ok(&mut command)?;
            Self::bring(place)?;
            self.rounds.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn check(&self, place: &Place) -> Result<()> {
        // The last round may have been cut short.
        Self::bring(place)?;
        let compared = Command::new("rsync")
            .args(["-aHSnci", "--delete", "--modify-window=-1"])
            .arg(place.beside.join("src/"))
            .arg(place.dir.join("src"))
            .output()?;
        let differs = String::from_utf8_lossy(&compared.stdout);
        kept!(compared.status.success() && differs.is_empty(), "rsync sees changes: {differs}");
        let options = tree::Options { times: true, xattrs: false };
        let (source, home) = (place.beside.join("src"), place.dir.join("src"));
        tree::same("rsync", &tree::read(&source, options)?, &tree::read(&home, options)?)
    }

    fn promised(&self) -> u64 {
        self.rounds.load(Ordering::SeqCst)
    }
}
