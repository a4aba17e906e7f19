//! What people do all day, as a plain user, with the results compared with the same on a local
//! disk.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use yadokari_tests::instance::{Instance, is_plain};
use yadokari_tests::stores::StoreKind;
use yadokari_tests::user::User;
use yadokari_tests::{cache, on_every_store, process, tree};

/// Files in the big archive.
const FILES: usize = 20_000;

on_every_store! {
    git_clones_collects_and_checks => git;
    cargo_builds_a_program_that_runs => cargo;
    a_virtual_environment_installs_numpy_and_imports_it => python;
    rsync_keeps_links_acls_and_attributes_there_and_back => rsync;
    sqlite_with_parallel_writers_in_wal_mode_stays_whole => sqlite;
    twenty_thousand_files_unpack_compare_and_go_again => unpack;
}

/// Does `work` in a home on the mount and in one on the local disk; both must say the same.
fn both(store: StoreKind, work: impl Fn(&User) -> Result<String>) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    let here = work(&user).context("in the home")?;
    let local = User::create(instance.beside())?;
    local.make_plain_home()?;
    let there = work(&local).context("on the local disk")?;
    ensure!(here == there, "in the home:\n{here}\non the local disk:\n{there}");
    instance.fsck_is_clean()
}

/// A repository with a few hundred commits, the same every time.
fn repository() -> Result<PathBuf> {
    cache::entry("repository.git", |dir| {
        process::sh(&format!(
            r#"git init --quiet --bare {dir}; cd {dir}
            for n in $(seq 400); do
                echo "commit refs/heads/main"
                echo "committer A U Thor <author@example.org> $((1600000000 + n * 3600)) +0000"
                echo "data <<END"; echo "commit $n"; echo END
                for f in $(seq 5); do
                    echo "M 644 inline dir$((n % 17))/file$(((n * f) % 97))"
                    echo "data <<END"; seq $((n * f % 500)); echo END
                done
            done | git fast-import --quiet
            git symbolic-ref HEAD refs/heads/main; chmod -R a+rX ."#,
            dir = dir.display()
        ))
        .map(drop)
    })
}

fn git(store: StoreKind) -> Result<()> {
    let repository = repository()?;
    both(store, |user| {
        user.sh(&format!(
            "git config --global safe.directory '*'\n\
             git clone --quiet file://{} clone; cd clone\n\
             git config user.name Ada; git config user.email ada@example.org\n\
             git checkout --quiet -b work HEAD~50; echo more >> dir3/file3; git add -A\n\
             GIT_AUTHOR_DATE=@1700000000+0000 GIT_COMMITTER_DATE=@1700000000+0000 git commit --quiet -m more\n\
             GIT_COMMITTER_DATE=@1700000000+0000 git merge --quiet -m merged main 2>/dev/null || git merge --abort\n\
             git gc --quiet --aggressive --prune=now; git fsck --full --strict 2>&1\n\
             git status --porcelain; git ls-files -s | sha256sum; git rev-parse main; git log --oneline | wc -l",
            repository.display()
        ))
    })
}

/// The toolchain where plain users can reach it.
fn toolchain() -> Result<PathBuf> {
    cache::entry("rust", |dir| {
        // The same file system mostly, so links will do; a copy otherwise.
        process::sh(&format!(
            "root=$(rustc --print sysroot); cp -al \"$root\" {0} 2>/dev/null || \
             {{ rm -rf {0}; cp -a \"$root\" {0}; }}; chmod a+rx {0}",
            dir.display()
        ))
        .map(drop)
    })
}

fn cargo(store: StoreKind) -> Result<()> {
    let toolchain = toolchain()?;
    both(store, |user| {
        user.sh(&format!(
            r#"export PATH={}/bin:$PATH CARGO_TERM_QUIET=true
            cargo new --quiet --vcs none app; cargo new --quiet --vcs none --lib part
            for n in $(seq 40); do
                echo "pub fn f$n(x: u64) -> u64 {{ x.wrapping_mul($n).rotate_left($n % 60) }}" > part/src/m$n.rs
                echo "pub mod m$n;" >> mods; echo "x = part::m$n::f$n(x);" >> calls
            done
            cp mods part/src/lib.rs
            echo 'part = {{ path = "../part" }}' >> app/Cargo.toml
            {{ echo 'fn main() {{ let mut x = 1;'; cat calls; echo 'println!("{{x}}"); }}'; }} > app/src/main.rs
            cd app; cargo build --offline --release; cargo build --offline
            ./target/release/app; touch src/main.rs; cargo run --offline; cargo build --offline"#,
            toolchain.display()
        ))
    })
}

/// numpy and what it needs, downloaded once.
fn wheels() -> Result<PathBuf> {
    cache::entry("wheels", |dir| {
        process::sh(&format!(
            "/usr/bin/python3 -m venv {0}.venv; {0}.venv/bin/pip download --quiet --dest {0} numpy; \
             rm -rf {0}.venv; chmod -R a+rX {0}",
            dir.display()
        ))
        .map(drop)
    })
}

fn python(store: StoreKind) -> Result<()> {
    let wheels = wheels()?;
    both(store, |user| {
        user.sh(&format!(
            "/usr/bin/python3 -m venv env\n\
             env/bin/pip install --quiet --no-index --find-links {} numpy\n\
             env/bin/python -c 'import numpy as n; print(n.__version__, n.linalg.det(n.eye(50) * 2))'\n\
             find env -type f ! -name '*.pyc' ! -name 'activate*' ! -path 'env/bin/*' ! -name pyvenv.cfg ! -name RECORD ! -name direct_url.json -print0 | sort -z | xargs -0 cat | sha256sum",
            wheels.display()
        ))
    })
}

fn rsync(store: StoreKind) -> Result<()> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    // Made by the very user, beside the mount.
    let beside = instance.beside().join("source");
    std::fs::create_dir(&beside)?;
    std::os::unix::fs::chown(&beside, Some(user.uid), Some(user.gid))?;
    user.sh(&format!(
        r#"cd {}; mkdir -p tree/deep/er; cd tree
        for n in $(seq 300); do seq $n > deep/f$n; done
        ln deep/f7 deep/er/link; ln -s ../f8 deep/er/soft; ln -s nowhere dangling
        truncate -s 5M sparse; echo end >> sparse; mkfifo fifo
        setfattr -n user.colour -v blue deep/f9; setfattr -n user.dir -v yes deep
        setfacl -m u:root:r,g:daemon:rw deep/f10; setfacl -d -m u:root:rx deep/er
        chmod 4711 deep/f11; chmod 1777 deep; touch -d '1999-12-31 23:59:59.123456789' deep/f12
        printf 'name with\nnewline' > "$(printf 'a\nb')""#,
        beside.display()
    ))?;
    user.sh(&format!(
        "rsync -aHAX --modify-window=-1 {0}/tree/ ~/copy/; rsync -aHAX --modify-window=-1 ~/copy/ {0}/back/\n\
         rsync -aHAXn --itemize-changes --checksum --delete {0}/tree/ ~/copy/ > changes; test ! -s changes",
        beside.display()
    ))?;
    let options = tree::Options { times: true, xattrs: true };
    let read = |dir: &Path| -> Result<tree::Tree> {
        let mut tree = tree::read(dir, options)?;
        // rsync leaves the times of links and pipes to the system.
        for node in tree.values_mut().filter(|node| !matches!(node.mode >> 12, 0o4 | 0o10)) {
            node.mtime = None;
        }
        Ok(tree)
    };
    let original = read(&beside.join("tree"))?;
    tree::same("the copy", &original, &read(&user.home.join("copy"))?)?;
    tree::same("and back", &original, &read(&beside.join("back"))?)
}

fn sqlite(store: StoreKind) -> Result<()> {
    both(store, |user| {
        user.sh(
            r#"cat > writer.py <<'PY'
import sqlite3, sys, random
db = sqlite3.connect("data.db", timeout=120, isolation_level=None)
random.seed(int(sys.argv[1]))
for n in range(150):
    db.execute("begin immediate")
    db.executemany("insert into t values (?, ?, ?)", [(int(sys.argv[1]), n, "x" * random.randrange(2000)) for _ in range(10)])
    db.execute("update sums set n = n + 10")
    db.execute("commit")
PY
sqlite3 data.db 'pragma journal_mode=wal; create table t (w, n, x); create index i on t (n, w); create table sums (n); insert into sums values (0);'
for w in 1 2 3 4; do /usr/bin/python3 writer.py $w & pids="${pids:-} $!"; done
for pid in $pids; do wait $pid; done
sqlite3 data.db 'pragma integrity_check; select count(*) from t; select n from sums; select w, sum(length(x)) from t group by w; pragma wal_checkpoint(truncate);'"#,
        )
    })
}

/// Files of all sizes, links and deep directories, the same every time.
fn archive() -> Result<PathBuf> {
    cache::entry("many-files.tar", |tar| {
        let script = format!(
            r#"import io, random, tarfile
random.seed(20260)
names = []
with tarfile.open("{}", "w", format=tarfile.PAX_FORMAT) as tar:
    for n in range({FILES}):
        name = "tree/d%d/e%d/f%d" % (n % 40, n % 7, n)
        info = tarfile.TarInfo(name)
        info.mtime = 1600000000 + n + 0.25
        info.mode = random.choice([0o644, 0o600, 0o755])
        kind = random.random()
        if names and kind < 0.02:
            info.type, info.linkname = tarfile.LNKTYPE, random.choice(names)
            tar.addfile(info)
        elif kind < 0.04:
            info.type, info.linkname = tarfile.SYMTYPE, "../f%d" % (n // 2)
            tar.addfile(info)
        else:
            size = int(random.expovariate(1 / 8000)) if random.random() < 0.995 else random.randrange(3000000)
            data = random.randbytes(size // 2) + b"abc" * (size // 6)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            names.append(name)
"#,
            tar.display()
        );
        process::ok(std::process::Command::new("/usr/bin/python3").args(["-c", &script]))?;
        Ok(std::fs::set_permissions(tar, PermissionsExt::from_mode(0o644))?)
    })
}

fn unpack(store: StoreKind) -> Result<()> {
    let archive = archive()?;
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    let used = || -> Result<Option<(u64, u64)>> {
        if is_plain() {
            return Ok(None);
        }
        let quota = instance.json(&["quota", &user.name])?;
        Ok(quota["bytes"].as_u64().zip(quota["inodes"].as_u64()))
    };
    user.sh("ls -a > /dev/null")?;
    let before = used()?;
    // What it finds to differ, other than owners, which a plain user cannot give away.
    let differ = "tar -df {0} | grep -v 'id differs$' > differences || true; test ! -s differences";
    let differ = differ.replace("{0}", &archive.display().to_string());
    user.sh(&format!("tar -xf {}; {differ}; rm differences", archive.display()))?;
    let local = instance.beside().join("local");
    std::fs::create_dir(&local)?;
    std::os::unix::fs::chown(&local, Some(user.uid), Some(user.gid))?;
    user.sh(&format!("tar -C {} -xf {}", local.display(), archive.display()))?;
    let options = tree::Options { times: true, xattrs: true };
    let read = |dir: &Path| -> Result<tree::Tree> {
        let mut tree = tree::read(dir, options)?;
        // tar sets no times of directories that the archive does not name, nor of links' targets.
        tree.retain(|_, node| node.mode & 0o170_000 != 0o040_000);
        Ok(tree)
    };
    tree::same("unpacked", &read(&local.join("tree"))?, &read(&user.home.join("tree"))?)?;
    let count = "find tree -type f -printf '%s\\n' | awk '{ n++; s += $1 } END { print n, s }'; find tree -type l | wc -l; find tree -type d | wc -l; test $(du -s --apparent-size tree | cut -f1) -gt 100000";
    let here = user.sh(count)?;
    let there = user.sh(&format!("cd {}; {count}", local.display()))?;
    ensure!(here == there, "find and du: {here} in the home, {there} on the local disk");
    user.sh(
        "cp -r tree again; diff -r --no-dereference tree again; rm -rf tree again; test ! -e tree",
    )?;
    yadokari_tests::wait::until(
        "the quota to be as before",
        std::time::Duration::from_secs(20),
        || used().ok().filter(|used| *used == before),
    )?;
    instance.fsck_is_clean()
}
