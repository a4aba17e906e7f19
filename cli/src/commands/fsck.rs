//! `yadokari fsck`: through the daemon where it runs, else on the store itself.

use yadokari_fs::home::fsck::{Options, Progress};
use yadokari_fs::home::homes::HomesError;
use yadokari_fs::node::Records;
use yadokari_fs::node::control::{Checked, HomeInfo, Request, Status};

use crate::args::FsckArgs;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::{instance, output};

/// Checks or repairs one home or all of them.
///
/// # Errors
/// What stopped it; findings are not errors, they set the exit code.
pub fn run(settings: &Settings, arguments: &FsckArgs) -> anyhow::Result<Exit> {
    let checked = match instance::connect(settings)? {
        Some(mut client) if arguments.repair => {
            let status = instance::ask::<Status>(&mut client, settings, &Request::Status)?;
            let error = Failure::refused(format!(
                "a repair needs the homes for itself, and the daemon of {} serves them \
                 (process {}, since {})",
                settings.data.display(),
                status.pid,
                output::time(i64::try_from(status.since).unwrap_or_default())
            ));
            return Err(error
                .remedy("stop it (SIGTERM), then: yadokari fsck HOME --repair")
                .into());
        }
        Some(mut client) => {
            let names = match &arguments.home {
                Some(name) => vec![name.clone()],
                None => {
                    let homes: Vec<HomeInfo> =
                        instance::ask(&mut client, settings, &Request::HomeList)?;
                    homes.into_iter().map(|home| home.name).collect()
                }
            };
            let mut all = Vec::new();
            for name in names {
                let verify_data = arguments.verify_data;
                let request = Request::HomeCheck { name: name.clone(), verify_data };
                match instance::ask::<Checked>(&mut client, settings, &request) {
                    Ok(checked) => all.push(checked),
                    // One that cannot even be opened hides none of the others.
                    Err(error) if arguments.home.is_none() => all.push(unchecked(name, &error)),
                    Err(error) => return Err(error),
                }
            }
            all
        }
        None => super::runtime()?.block_on(stopped(settings, arguments))?,
    };
    output::print(arguments.output, &checked, |all| show(all))?;
    let clean = checked.iter().all(|home| home.clean);
    Ok(if clean { Exit::Done } else { Exit::Failed })
}

async fn stopped(settings: &Settings, arguments: &FsckArgs) -> anyhow::Result<Vec<Checked>> {
    let records = instance::records(settings).await?;
    let names = match &arguments.home {
        Some(name) => vec![name.clone()],
        None => records.list().await?.iter().map(|head| head.name.to_string()).collect(),
    };
    let mut all = Vec::new();
    for name in names {
        match one(&records, &name, arguments).await {
            Ok(checked) => all.push(checked),
            Err(error) if arguments.home.is_none() => all.push(unchecked(name, &error)),
            Err(error) => return Err(error),
        }
    }
    records.shutdown().await?;
    Ok(all)
}

fn unchecked(home: String, error: &anyhow::Error) -> Checked {
    let text = format!("could not be checked: {error:#}");
    Checked { home, clean: false, report: serde_json::json!({ "error": text }), text }
}

async fn one(
    records: &yadokari_fs::node::StoreRecords,
    name: &str,
    arguments: &FsckArgs,
) -> anyhow::Result<Checked> {
    let mut shown = output::Progress::new(format!("checking {name}"));
    let mut progress = |at: Progress| shown.at(&format!("{} {}", at.stage, at.done));
    let homes = records.homes();
    // Somebody else may have it open: what nothing refers to yet is no finding then.
    let in_use = !arguments.repair && homes.show(name).await.is_ok_and(|d| d.served_by.is_some());
    let options = Options { verify_data: arguments.verify_data, in_use };
    let failed = |error: HomesError| {
        let refused = matches!(error, HomesError::OwnedElsewhere { .. });
        let missing = matches!(error, HomesError::NotFound { .. } | HomesError::Removed { .. });
        let text = error.to_string();
        match (refused, missing) {
            (true, _) => Failure::refused(text),
            (_, true) => Failure::not_found(text),
            _ => Failure::failed(text),
        }
    };
    let home = name.to_owned();
    if arguments.repair {
        let repaired = homes
            .repair(name, arguments.take_over, options, &mut progress)
            .await
            .map_err(failed)?;
        let (report, text) = (serde_json::to_value(&repaired)?, repaired.to_string());
        return Ok(Checked { home, clean: repaired.after.clean, report, text });
    }
    let found = homes.check(name, options, &mut progress).await.map_err(failed)?;
    let (report, text) = (serde_json::to_value(&found)?, found.to_string());
    Ok(Checked { home, clean: found.clean, report, text })
}

fn show(all: &[Checked]) -> String {
    if all.is_empty() {
        return "there are no homes\n".to_owned();
    }
    all.iter()
        .map(|checked| {
            let result = if checked.clean { "clean" } else { "NOT CLEAN" };
            format!("{}: {result}\n{}\n", checked.home, checked.text.trim_end())
        })
        .collect()
}
