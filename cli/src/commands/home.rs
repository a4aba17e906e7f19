//! `yadokari home …` and `yadokari quota`.

use yadokari_fs::home::{Error, ErrorKind, Quota};
use yadokari_fs::node::control::{HomeInfo, Request};
use yadokari_fs::node::{NewHome, Records};

use super::transfer;
use crate::args::{HomeCommand, QuotaArgs};
use crate::config::Settings;
use crate::exit::{self, Exit, Failure};
use crate::size::{NO_LIMIT, show_bytes, show_count};
use crate::{instance, output, users};

/// Runs one of `yadokari home …`.
///
/// # Errors
/// The daemon's or the store's reason.
pub fn run(settings: &Settings, command: HomeCommand) -> anyhow::Result<Exit> {
    match command {
        HomeCommand::Create { name, owner, limits, output } => {
            let owner = owner.map(|owner| find_owner(&owner)).transpose()?;
            let request =
                Request::HomeCreate { name, owner, bytes: limits.quota, inodes: limits.inodes };
            let made = one(settings, &request)
                .map_err(|error| explain_create(settings, request, error))?;
            output::print(output, &made, |home| format!("made {}\n", home.name))?;
        }
        HomeCommand::List { output } => {
            let homes = match instance::connect(settings)? {
                Some(mut client) => instance::ask(&mut client, settings, &Request::HomeList)?,
                None => list_stopped(settings)?,
            };
            output::print(output, &homes, |homes| table(homes))?;
        }
        HomeCommand::Show { name, output } => {
            output::print(output, &one(settings, &Request::HomeShow { name })?, facts)?;
        }
        HomeCommand::SetQuota { name, limits, output } => {
            if limits.quota.is_none() && limits.inodes.is_none() {
                let error = Failure::usage("no limit was given");
                return Err(error.remedy("add --quota SIZE, --inodes COUNT, or both").into());
            }
            let request =
                Request::HomeSetQuota { name, bytes: limits.quota, inodes: limits.inodes };
            output::print(output, &one(settings, &request)?, facts)?;
        }
        HomeCommand::Clone { home, new, limits, output } => {
            return transfer::clone(settings, &home, new, limits, output);
        }
        HomeCommand::Export { home, file } => return transfer::export(settings, &home, &file),
        HomeCommand::Import { name, file, owner, limits, output } => {
            let owner = owner.map(|owner| find_owner(&owner)).transpose()?;
            return transfer::import(settings, name, &file, owner, limits, output);
        }
        HomeCommand::Snapshot(command) => return super::snapshot::run(settings, command),
        HomeCommand::Remove { name } => {
            remove(settings, &name)?;
            eprintln!("removed {name}; for 7 days `yadokari home restore {name}` brings it back");
        }
        HomeCommand::Restore { name } => {
            let home = one(settings, &Request::HomeRestore { name })?;
            eprintln!("{} is back, with {}", home.name, show_bytes(home.bytes));
        }
    }
    Ok(Exit::Done)
}

/// `yadokari quota`.
///
/// # Errors
/// The daemon's or the store's reason.
pub fn quota(settings: &Settings, arguments: QuotaArgs) -> anyhow::Result<Exit> {
    let name = match arguments.home {
        Some(name) => name,
        None => users::name_of(rustix::process::getuid().as_raw()).ok_or_else(|| {
            Failure::usage("the system does not know your name").remedy("yadokari quota HOME")
        })?,
    };
    let home = one(settings, &Request::HomeShow { name })?;
    output::print(arguments.output, &home, |home| table(std::slice::from_ref(home)))?;
    Ok(Exit::Done)
}

/// A request that gives one home, to the daemon or, where none runs, to the store.
///
/// # Errors
/// The daemon's or the store's reason.
pub fn one(settings: &Settings, request: &Request) -> anyhow::Result<HomeInfo> {
    match instance::connect(settings)? {
        Some(mut client) => instance::ask(&mut client, settings, request),
        None => super::runtime()?.block_on(one_stopped(settings, request)),
    }
}

async fn one_stopped(settings: &Settings, request: &Request) -> anyhow::Result<HomeInfo> {
    let records = match request {
        Request::HomeCreate { .. } => instance::records_or_new(settings).await?,
        _ => instance::records(settings).await?,
    };
    let head = match request {
        Request::HomeShow { name } => records
            .show(name)
            .await
            .and_then(|head| head.ok_or_else(|| ErrorKind::NotFound.into()))
            .map_err(|error| explain(name, error))?,
        Request::HomeCreate { name, owner, bytes, inodes } => {
            let owner = owner.map_or_else(|| find_owner(name), Ok)?;
            let quota = Quota {
                bytes: bytes.unwrap_or(settings.home_quota),
                inodes: inodes.unwrap_or(settings.home_inodes),
            };
            let new = NewHome { name: name.clone(), owner, quota };
            records.create(new).await.map_err(|error| explain(name, error))?
        }
        Request::HomeSetQuota { name, bytes, inodes } => {
            let head = records.show(name).await.map_err(|error| explain(name, error))?;
            let usage = head.ok_or_else(|| explain(name, ErrorKind::NotFound.into()))?.usage;
            let quota = Quota {
                bytes: bytes.unwrap_or(usage.bytes_limit),
                inodes: inodes.unwrap_or(usage.inodes_limit),
            };
            records.set_quota(name, quota).await.map_err(|error| explain(name, error))?
        }
        Request::HomeRestore { name } => {
            records.restore(name).await.map_err(|error| explain(name, error))?
        }
        other => unreachable!("{other:?} does not give a home"),
    };
    Ok(instance::info(&head))
}

fn list_stopped(settings: &Settings) -> anyhow::Result<Vec<HomeInfo>> {
    super::runtime()?.block_on(async {
        let mut heads = instance::records(settings).await?.list().await?;
        heads.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(heads.iter().map(instance::info).collect())
    })
}

fn remove(settings: &Settings, name: &str) -> anyhow::Result<()> {
    if let Some(mut client) = instance::connect(settings)? {
        let request = Request::HomeRemove { name: name.to_owned() };
        return instance::ask::<()>(&mut client, settings, &request);
    }
    super::runtime()?.block_on(async {
        let records = instance::records(settings).await?;
        Ok(records.remove(name).await.map_err(|error| explain(name, error))?)
    })
}

/// What an error of a home means to whoever gave the command.
pub fn explain(name: &str, error: Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => Failure::not_found(format!("there is no home {name}"))
            .remedy(format!("yadokari home list shows all; yadokari home create {name} makes it")),
        ErrorKind::Exists => Failure::refused(format!("the home {name} exists already")),
        ErrorKind::NotPermitted => Failure::refused(format!("the home {name} was removed"))
            .remedy(format!("bring it back: yadokari home restore {name}")),
        ErrorKind::OwnedElsewhere(_) => Failure::refused(error.to_string()),
        ErrorKind::Fenced => Failure::refused(format!("home {name}: {error}")),
        _ => Failure::failed(format!("home {name}: {error}")),
    }
}

/// A refusal has two reasons with different remedies: it exists, or it was removed.
fn explain_create(settings: &Settings, request: Request, error: anyhow::Error) -> anyhow::Error {
    let Request::HomeCreate { name, .. } = request else { return error };
    if exit::code(&error) != Exit::Refused {
        return error;
    }
    match one(settings, &Request::HomeShow { name: name.clone() }) {
        Ok(_) => explain(&name, ErrorKind::Exists.into()).into(),
        Err(why) if exit::code(&why) == Exit::NotFound && rustix::process::geteuid().is_root() => {
            explain(&name, ErrorKind::NotPermitted.into()).into()
        }
        Err(_) => error,
    }
}

/// The ids of a user, by name or number.
pub fn find_owner(key: &str) -> anyhow::Result<(u32, u32)> {
    let user = users::find(key).ok_or_else(|| {
        Failure::not_found(format!("the system knows no user {key}"))
            .remedy("`getent passwd` shows all; --owner USER names another owner")
    })?;
    Ok((user.uid, user.gid))
}

fn limit(limit: Option<u64>, show: fn(u64) -> String) -> String {
    show(limit.unwrap_or(NO_LIMIT))
}

fn percent(used: u64, limit: Option<u64>) -> String {
    match limit {
        Some(limit) if limit > 0 => {
            format!("{} %", u128::from(used) * 100 / u128::from(limit))
        }
        _ => String::new(),
    }
}

fn table(homes: &[HomeInfo]) -> String {
    let rows: Vec<Vec<String>> = homes
        .iter()
        .map(|home| {
            vec![
                home.name.clone(),
                users::name_of(home.uid).unwrap_or_else(|| home.uid.to_string()),
                show_bytes(home.bytes),
                limit(home.bytes_limit, show_bytes),
                percent(home.bytes, home.bytes_limit),
                show_count(home.inodes),
                limit(home.inodes_limit, show_count),
                percent(home.inodes, home.inodes_limit),
                show_count(home.snapshots),
                show_bytes(home.snapshot_bytes),
                if home.open { "open" } else { "" }.to_owned(),
            ]
        })
        .collect();
    let head =
        ["home", "owner", "used", "limit", "", "inodes", "limit", "", "snapshots", "hold", ""];
    output::table(&head, &[2, 3, 4, 5, 6, 7, 8, 9], &rows)
}

fn facts(home: &HomeInfo) -> String {
    let owner = users::name_of(home.uid)
        .map_or_else(|| home.uid.to_string(), |name| format!("{name} ({}:{})", home.uid, home.gid));
    let of = |used: String, limit: String, percent: String| match percent.as_str() {
        "" => format!("{used}, no limit"),
        percent => format!("{used} of {limit} ({percent})"),
    };
    output::facts(&[
        ("home", home.name.clone()),
        ("owner", owner),
        (
            "used",
            of(
                show_bytes(home.bytes),
                limit(home.bytes_limit, show_bytes),
                percent(home.bytes, home.bytes_limit),
            ),
        ),
        (
            "inodes",
            of(
                show_count(home.inodes),
                limit(home.inodes_limit, show_count),
                percent(home.inodes, home.inodes_limit),
            ),
        ),
        (
            "snapshots",
            format!(
                "{}, which alone hold {} (not charged); the schedule is {}",
                show_count(home.snapshots),
                show_bytes(home.snapshot_bytes),
                if home.scheduled { "on" } else { "off" }
            ),
        ),
        ("volume", home.volume.to_string()),
        ("open here", if home.open { "yes" } else { "no" }.to_owned()),
    ])
}
