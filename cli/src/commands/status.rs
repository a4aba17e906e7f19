//! `yadokari status` and `yadokari stats`.

use std::io::IsTerminal;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use yadokari_fs::node::control::{HomeStats, Request, Status};

use crate::args::{Output, StatsArgs};
use crate::config::Settings;
use crate::exit::Exit;
use crate::size::{show_bytes, show_count, show_duration};
use crate::{instance, output};

/// The shape of `status --json`.
#[derive(Serialize)]
struct Shown {
    running: bool,
    data: std::path::PathBuf,
    store: String,
    #[serde(flatten)]
    status: Option<Status>,
}

/// `yadokari status`; ends with 3 when nothing runs.
///
/// # Errors
/// The daemon's reason.
pub fn status(settings: &Settings, output: Output) -> anyhow::Result<Exit> {
    let status = match instance::connect(settings)? {
        Some(mut client) => Some(instance::ask::<Status>(&mut client, settings, &Request::Status)?),
        None => None,
    };
    let running = status.is_some();
    let data = settings.data.clone();
    let shown = Shown { running, data, store: settings.store_url(), status };
    output::print(output, &shown, show)?;
    Ok(if running { Exit::Done } else { Exit::NotFound })
}

fn show(shown: &Shown) -> String {
    let data = ("data", shown.data.display().to_string());
    let Some(status) = &shown.status else {
        let hint = format!("yadokari up --data {}", shown.data.display());
        return output::facts(&[("running", "no".into()), data, ("start it", hint)]);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let since = show_duration(now.saturating_sub(status.since));
    let mut lines = vec![
        (
            "running",
            format!("yes, process {}, version {}, for {since}", status.pid, status.version),
        ),
        data,
        ("store", shown.store.clone()),
    ];
    if let Some(path) = &status.homes_mount {
        lines.push(("homes", path.display().to_string()));
    }
    for mount in &status.mounts {
        lines.push(("mount", format!("{} at {}", mount.home, mount.path.display())));
    }
    lines.push(("homes open", status.homes_open.to_string()));
    if let (Some(free), Some(all)) = (status.store_bytes_free, status.store_bytes) {
        lines.push(("space", format!("{} free of {}", show_bytes(free), show_bytes(all))));
    }
    if let Some(trouble) = &status.trouble {
        lines.push(("trouble", trouble.clone()));
    }
    for home in &status.homes_in_trouble {
        let named = home.trouble.starts_with(&format!("home {} ", home.home));
        let name = if named { String::new() } else { format!("home {}: ", home.home) };
        lines.push(("trouble", format!("{name}{}", home.trouble)));
    }
    output::facts(&lines)
}

/// `yadokari stats`; live unless `--once`.
///
/// # Errors
/// The daemon's reason; also when it goes away meanwhile.
pub fn stats(settings: &Settings, arguments: &StatsArgs) -> anyhow::Result<Exit> {
    let mut client = instance::require(settings)?;
    let mut ask = || -> anyhow::Result<Vec<HomeStats>> {
        instance::ask(&mut client, settings, &Request::Stats)
    };
    if arguments.once {
        output::print(arguments.output, &ask()?, |homes| table(homes, &[], None))?;
        return Ok(Exit::Done);
    }
    let interval = Duration::from_secs(arguments.interval);
    let redraw = std::io::stdout().is_terminal();
    let mut before = ask()?;
    let mut asked = Instant::now();
    loop {
        std::thread::sleep(interval);
        let now = ask()?;
        let elapsed = asked.elapsed();
        asked = Instant::now();
        if arguments.output.json {
            output::write_out(&format!("{}\n", serde_json::to_string(&now)?))?;
        } else {
            let clear = if redraw { "\x1b[H\x1b[2J" } else { "" };
            output::write_out(&format!("{clear}{}", table(&now, &before, Some(elapsed))))?;
        }
        before = now;
    }
}

/// Totals, or rates over the time since `before`. Homes that do nothing come last.
fn table(now: &[HomeStats], before: &[HomeStats], elapsed: Option<Duration>) -> String {
    let mut homes: Vec<(&HomeStats, [u64; 5])> =
        now.iter().map(|home| (home, change(home, before, elapsed))).collect();
    homes.sort_by(|(a, x), (b, y)| y[0].cmp(&x[0]).then_with(|| a.name.cmp(&b.name)));
    let per = if elapsed.is_some() { "/s" } else { "" };
    let rows: Vec<Vec<String>> = homes
        .iter()
        .map(|(home, [requests, waited, failed, read, written])| {
            vec![
                home.name.clone(),
                if home.open { "open" } else { "closed" }.to_owned(),
                show_count(*requests),
                show_count(*waited),
                show_count(*failed),
                show_bytes(*read),
                show_bytes(*written),
                show_count(home.waiting),
            ]
        })
        .collect();
    let head = [
        "home".to_owned(),
        String::new(),
        format!("requests{per}"),
        format!("waited{per}"),
        format!("failed{per}"),
        format!("read{per}"),
        format!("written{per}"),
        "waiting now".to_owned(),
    ];
    output::table(&head.each_ref().map(String::as_str), &[2, 3, 4, 5, 6, 7], &rows)
}

fn change(home: &HomeStats, before: &[HomeStats], elapsed: Option<Duration>) -> [u64; 5] {
    let values = |home: &HomeStats| {
        let c = &home.counters;
        [c.requests, c.waited, c.failed, c.read_bytes, c.written_bytes]
    };
    let Some(elapsed) = elapsed else { return values(home) };
    let old = before.iter().find(|old| old.name == home.name).map_or([0; 5], values);
    let mut rates = values(home);
    for (rate, old) in rates.iter_mut().zip(old) {
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        *rate = rate.saturating_sub(old).saturating_mul(1000) / ms;
    }
    rates
}
