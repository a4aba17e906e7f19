//! `yadokari home clone`, `export` and `import`.
//!
//! The daemon moves the bytes itself, through the descriptor that it is handed. How far it is
//! shows in the position of a file, which both share.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use yadokari_fs::archive::{ArchiveError, Moved};
use yadokari_fs::home::{ErrorKind, Quota};
use yadokari_fs::node::control::{Request, Transferred};
use yadokari_fs::node::{NewHome, Records, transfer};

use super::home::{explain, find_owner, one};
use crate::args::{Output, QuotaLimits};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output::Progress;
use crate::size::{show_bytes, show_count};
use crate::{instance, output};

/// How often the position of a file is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// `yadokari home export`.
///
/// # Errors
/// The daemon's or the store's reason.
pub fn export(settings: &Settings, what: &str, file: &Path) -> anyhow::Result<Exit> {
    let (home, snapshot) = parts(settings, what);
    let to = if is_dash(file) {
        let out = std::io::stdout();
        if std::io::IsTerminal::is_terminal(&out) {
            let error = Failure::usage("an archive is not for a terminal");
            return Err(error.remedy("name a file, or send it on: … | zstd > FILE").into());
        }
        out.as_fd().try_clone_to_owned()?
    } else {
        let made = File::create_new(file);
        made.with_context(|| format!("making {}", file.display()))?.into()
    };
    let done = watched("exporting", &to, || export_to(settings, home, snapshot, &to));
    if done.is_err() && !is_dash(file) {
        drop(std::fs::remove_file(file));
    }
    let moved = done?;
    if !is_dash(file) {
        File::from(to).sync_all().with_context(|| format!("writing {}", file.display()))?;
    }
    eprintln!("exported {}", shown(&moved));
    Ok(Exit::Done)
}

fn export_to(
    settings: &Settings,
    home: &str,
    snapshot: Option<&str>,
    to: &OwnedFd,
) -> anyhow::Result<Moved> {
    if let Some(mut client) = instance::connect(settings)? {
        let (home, snapshot) = (home.to_owned(), snapshot.map(str::to_owned));
        let request = Request::HomeExport { home, snapshot };
        let answer = client.request_with(&request, Some(to.as_fd()), |_| {});
        return Ok(answer.map_err(|error| instance::translate(error, &settings.data))?);
    }
    let to = File::from(to.try_clone()?);
    super::snapshot::stopped(settings, home, async |open| {
        let moved = transfer::export(open, snapshot, to).await;
        Ok(moved.map_err(|error| failed(snapshot, error))?)
    })
}

/// `yadokari home import`.
///
/// # Errors
/// The daemon's or the store's reason.
pub fn import(
    settings: &Settings,
    name: String,
    file: &Path,
    owner: Option<(u32, u32)>,
    limits: QuotaLimits,
    output: Output,
) -> anyhow::Result<Exit> {
    let from: OwnedFd = if is_dash(file) {
        std::io::stdin().as_fd().try_clone_to_owned()?
    } else {
        File::open(file).with_context(|| format!("opening {}", file.display()))?.into()
    };
    let made = watched("importing", &from, || {
        if let Some(mut client) = instance::connect(settings)? {
            let (bytes, inodes) = (limits.quota, limits.inodes);
            let request = Request::HomeImport { name: name.clone(), owner, bytes, inodes };
            let answer = client.request_with(&request, Some(from.as_fd()), |_| {});
            return Ok(answer.map_err(|error| instance::translate(error, &settings.data))?);
        }
        let from = File::from(from.try_clone()?);
        let owner = owner.map_or_else(|| find_owner(&name), Ok)?;
        super::runtime()?.block_on(async {
            let records = instance::records(settings).await?;
            let new = new_home(settings, &name, owner, limits);
            let made = transfer::import(&*records, new, from).await;
            records.shutdown().await?;
            let (head, moved) = made.map_err(|error| failed(None, error))?;
            Ok(Transferred { home: instance::info(&head), moved })
        })
    })?;
    told(output, &made)
}

/// `yadokari home clone`.
///
/// # Errors
/// The daemon's or the store's reason.
pub fn clone(
    settings: &Settings,
    what: &str,
    name: String,
    limits: QuotaLimits,
    output: Output,
) -> anyhow::Result<Exit> {
    let (home, snapshot) = parts(settings, what);
    let made: Transferred = if let Some(mut client) = instance::connect(settings)? {
        let (bytes, inodes) = (limits.quota, limits.inodes);
        let (home, snapshot) = (home.to_owned(), snapshot.map(str::to_owned));
        let request = Request::HomeClone { home, snapshot, name, bytes, inodes };
        instance::ask(&mut client, settings, &request)?
    } else {
        super::runtime()?.block_on(async {
            let records = instance::records(settings).await?;
            let head = records.show(home).await.map_err(|error| explain(home, error))?;
            let head = head.ok_or_else(|| explain(home, ErrorKind::NotFound.into()))?;
            let open = records.open(&head).await.map_err(|error| explain(home, error))?;
            let new = new_home(settings, &name, (head.root.uid, head.root.gid), limits);
            let made = transfer::clone(&open, snapshot, &*records, new).await;
            records.homes().close(home).await?;
            records.shutdown().await?;
            let (head, moved) = made.map_err(|error| failed(snapshot, error))?;
            anyhow::Ok(Transferred { home: instance::info(&head), moved })
        })?
    };
    told(output, &made)
}

fn told(output: Output, made: &Transferred) -> anyhow::Result<Exit> {
    output::print(output, made, |made| {
        format!("made {} with {}\n", made.home.name, shown(&made.moved))
    })?;
    Ok(Exit::Done)
}

fn new_home(settings: &Settings, name: &str, owner: (u32, u32), limits: QuotaLimits) -> NewHome {
    let quota = Quota {
        bytes: limits.quota.unwrap_or(settings.home_quota),
        inodes: limits.inodes.unwrap_or(settings.home_inodes),
    };
    NewHome { name: name.to_owned(), owner, quota }
}

/// `HOME` or `HOME@SNAPSHOT`. Homes may have an `@` in their names: one that is there counts.
fn parts<'a>(settings: &Settings, what: &'a str) -> (&'a str, Option<&'a str>) {
    let whole = Request::HomeShow { name: what.to_owned() };
    match what.rsplit_once('@') {
        Some(_) if one(settings, &whole).is_ok() => (what, None),
        Some((home, snapshot)) => (home, Some(snapshot)),
        None => (what, None),
    }
}

fn is_dash(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn shown(moved: &Moved) -> String {
    let sockets = match moved.skipped {
        0 => String::new(),
        count => format!("; left out {count} sockets"),
    };
    format!("{} files, {}{sockets}", show_count(moved.entries), show_bytes(moved.bytes))
}

/// Says how far the position of a file is while `work` runs. Of a pipe nothing is known.
fn watched<T>(
    what: &str,
    stream: &OwnedFd,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut progress = Progress::new(what.to_owned());
            while !done.load(Ordering::Acquire) {
                let at = rustix::fs::seek(stream, rustix::fs::SeekFrom::Current(0));
                let at = at.map_or_else(|_| String::new(), show_bytes);
                progress.at(&at);
                std::thread::park_timeout(LOOK);
            }
        });
        let result = work();
        done.store(true, Ordering::Release);
        watcher.thread().unpark();
        result
    })
}

fn failed(snapshot: Option<&str>, error: ArchiveError) -> Failure {
    match error {
        ArchiveError::Home(home, error) => match (snapshot, error.kind()) {
            (Some(snapshot), ErrorKind::NotFound) => {
                Failure::not_found(format!("home {home} has no snapshot {snapshot}"))
                    .remedy(format!("yadokari home snapshot list {home} shows all"))
            }
            _ => explain(&home, error),
        },
        other => Failure::failed(other.to_string()),
    }
}
