//! `yadokari home snapshot …`.

use yadokari_fs::home::{Error, ErrorKind, Home};
use yadokari_fs::node::control::{HomeInfo, Request, SnapshotInfo};
use yadokari_fs::node::{Records, snapshots};

use crate::args::{SnapshotCommand, Switch};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::size::{show_bytes, show_count};
use crate::{instance, output};

/// Runs one of `yadokari home snapshot …`.
///
/// # Errors
/// The daemon's or the store's reason.
pub fn run(settings: &Settings, command: SnapshotCommand) -> anyhow::Result<Exit> {
    match command {
        SnapshotCommand::Create { home, name, output } => {
            let made = create(settings, home, name)?;
            output::print(output, &made, |made| format!("made {} of {}\n", made.name, made.home))?;
        }
        SnapshotCommand::List { home, output } => {
            let all = list(settings, home)?;
            output::print(output, &all, |all| table(all))?;
        }
        SnapshotCommand::Rm { home, name } => {
            remove(settings, &home, &name)?;
            eprintln!("removed {name} of {home}");
        }
        SnapshotCommand::Schedule { home, state, output } => {
            let info = schedule(settings, home, state == Switch::On)?;
            output::print(output, &info, |info| {
                let state = if info.scheduled { "on" } else { "off" };
                format!("the schedule of {} is {state}\n", info.name)
            })?;
        }
    }
    Ok(Exit::Done)
}

fn create(settings: &Settings, home: String, name: Option<String>) -> anyhow::Result<SnapshotInfo> {
    if let Some(mut client) = instance::connect(settings)? {
        return instance::ask(&mut client, settings, &Request::SnapshotCreate { home, name });
    }
    stopped(settings, &home.clone(), async |open: &Home| {
        let what = name.clone().unwrap_or_default();
        let made = snapshots::create(open, name, true).await;
        Ok(SnapshotInfo::new(&home, &made.map_err(|error| explain(&home, &what, &error))?))
    })
}

fn list(settings: &Settings, home: String) -> anyhow::Result<Vec<SnapshotInfo>> {
    if let Some(mut client) = instance::connect(settings)? {
        return instance::ask(&mut client, settings, &Request::SnapshotList { home });
    }
    stopped(settings, &home.clone(), async |open: &Home| {
        let all = open.snapshots().map_err(|error| explain(&home, "", &error))?;
        Ok(all.iter().map(|snapshot| SnapshotInfo::new(&home, snapshot)).collect())
    })
}

fn remove(settings: &Settings, home: &str, name: &str) -> anyhow::Result<()> {
    if let Some(mut client) = instance::connect(settings)? {
        let request = Request::SnapshotRemove { home: home.to_owned(), name: name.to_owned() };
        return instance::ask(&mut client, settings, &request);
    }
    stopped(settings, home, async |open: &Home| {
        let removed = open.remove_snapshot(name).await;
        Ok(removed.map_err(|error| explain(home, name, &error))?)
    })
}

fn schedule(settings: &Settings, home: String, on: bool) -> anyhow::Result<HomeInfo> {
    if let Some(mut client) = instance::connect(settings)? {
        return instance::ask(&mut client, settings, &Request::SnapshotSchedule { home, on });
    }
    super::runtime()?.block_on(async {
        let records = instance::records(settings).await?;
        let head = records.set_schedule(&home, on).await;
        Ok(instance::info(&head.map_err(|error| super::home::explain(&home, error))?))
    })
}

/// Opens a home that no daemon of this instance serves, for one piece of work.
///
/// # Errors
/// Why it does not open or close, and those of the work.
pub fn stopped<T>(
    settings: &Settings,
    home: &str,
    work: impl AsyncFnOnce(&Home) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    super::runtime()?.block_on(async {
        let records = instance::records(settings).await?;
        let explain = |error| super::home::explain(home, error);
        let head = records.show(home).await.map_err(explain)?;
        let head = head.ok_or_else(|| explain(ErrorKind::NotFound.into()))?;
        let open = records.open(&head).await.map_err(explain)?;
        let done = work(&open).await;
        records.homes().close(home).await?;
        records.shutdown().await?;
        done
    })
}

fn explain(home: &str, name: &str, error: &Error) -> Failure {
    let list = format!("yadokari home snapshot list {home} shows all");
    match error.kind() {
        ErrorKind::NotFound => {
            Failure::not_found(format!("home {home} has no snapshot {name}")).remedy(list)
        }
        ErrorKind::Exists => {
            Failure::refused(format!("home {home} has a snapshot {name} already")).remedy(list)
        }
        ErrorKind::Invalid | ErrorKind::NameTooLong => {
            Failure::usage(format!("a snapshot cannot be called {name:?}"))
                .remedy("up to 64 letters, digits and _ - . + : that begin with a letter or digit")
        }
        ErrorKind::TooManySnapshots(_) => {
            Failure::refused(format!("home {home}: {error}")).remedy(list)
        }
        _ => Failure::failed(format!("home {home}: {error}")),
    }
}

fn table(all: &[SnapshotInfo]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|snapshot| {
            vec![
                snapshot.name.clone(),
                output::time(snapshot.created),
                snapshot.origin.clone(),
                show_bytes(snapshot.bytes),
                show_count(snapshot.inodes),
            ]
        })
        .collect();
    output::table(&["snapshot", "made", "by", "used", "inodes"], &[3, 4], &rows)
}
