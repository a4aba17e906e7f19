//! What each command does: asks the instance, prints facts, gives the exit code.

mod fsck;
mod home;
mod mount;
mod snapshot;
mod status;
mod transfer;

use clap::CommandFactory;
use yadokari_fs::node::control::Request;
use yadokari_fs::view::Form;

use crate::args::{Cli, Command, GatewayArgs, Global, ServeArgs, SetupCommand};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::setup::{podman, registries, volatile};
use crate::{doctor, gateway, image, instance, output, serve};

/// Runs one command.
///
/// # Errors
/// What stopped it; [`crate::exit`] turns it into words and a code.
pub fn run(command: Command, global: &Global, settings: Settings) -> anyhow::Result<Exit> {
    let settings = match command {
        Command::Up(_) | Command::Node(_) | Command::Doctor(_) => settings,
        _ => instance::meant(settings, global.data.is_some() || global.config.is_some()),
    };
    match command {
        Command::Up(arguments) => up(settings, arguments.serve),
        Command::Node(arguments) => node(global, &settings, arguments.take_over),
        Command::Gateway(arguments) => gateway(settings, arguments),
        Command::Mount(arguments) => mount::mount(settings, arguments),
        Command::Umount(arguments) => mount::umount(&settings, &arguments),
        Command::Home(command) => home::run(&settings, command),
        Command::Image(arguments) => image::run(&settings, arguments),
        Command::Quota(arguments) => home::quota(&settings, arguments),
        Command::Status(output) => status::status(&settings, output),
        Command::Stats(arguments) => status::stats(&settings, &arguments),
        Command::Sync(arguments) => {
            let mut client = instance::require(&settings)?;
            let request = Request::Sync { home: arguments.home };
            instance::ask::<serde_json::Value>(&mut client, &settings, &request)?;
            Ok(Exit::Done)
        }
        Command::Fsck(arguments) => fsck::run(&settings, &arguments),
        Command::Doctor(output) => {
            let report = runtime()?.block_on(doctor::examine(&doctor::Subject::caller(settings)));
            output::print(output, &report, doctor::show)?;
            Ok(if report.ready { Exit::Done } else { Exit::Failed })
        }
        Command::Setup(SetupCommand::Podman(arguments)) => {
            let home = std::env::home_dir().unwrap_or_default();
            let (system, dry_run) = (arguments.system, arguments.dry_run);
            let running = registries::running(&settings.data).and_then(|at| at.parse().ok());
            let configured = || settings.gateway.addresses().0.first().copied();
            let at = arguments.registry.or(running).or_else(configured);
            let mut outcome = podman::run(&home, system, dry_run)?;
            if let Some(at) = at {
                let (home, data) = (&home, &settings.data);
                outcome.registry = podman::name_registry(home, system, dry_run, data, at)?;
            }
            outcome.volatile = volatile::set(system, dry_run);
            output::print(arguments.output, &outcome, podman::show)?;
            Ok(Exit::Done)
        }
        Command::Completion(arguments) => {
            let mut script = Vec::new();
            clap_complete::generate(arguments.shell, &mut Cli::command(), "yadokari", &mut script);
            output::write_out(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Done)
        }
    }
}

fn up(mut settings: Settings, flags: ServeArgs) -> anyhow::Result<Exit> {
    if let Some(store) = flags.store {
        settings.store = Some(store);
    }
    if let Some(home) = flags.home {
        settings.home_mount = Some(crate::config::absolute(&home)?);
    }
    settings.home_quota = flags.quota.unwrap_or(settings.home_quota);
    settings.home_inodes = flags.inodes.unwrap_or(settings.home_inodes);
    listen(&mut settings, flags.listen)?;
    let shows = serve::all_homes(&settings);
    let take_over = flags.take_over;
    let gateway = true;
    let plan = serve::Plan { shows, form: Form::Local, announce: true, take_over, gateway };
    serve::run(&settings, plan)
}

fn gateway(mut settings: Settings, arguments: GatewayArgs) -> anyhow::Result<Exit> {
    if let Some(store) = arguments.store {
        settings.store = Some(store);
    }
    listen(&mut settings, arguments.listen)?;
    gateway::run(&settings)
}

fn listen(settings: &mut Settings, flag: Option<String>) -> anyhow::Result<()> {
    if let Some(text) = flag {
        let listen = crate::config::parse_listen(&text)
            .map_err(|why| Failure::usage(format!("--listen {text}: {why}")))?;
        settings.gateway.listen = Some(listen);
    }
    Ok(())
}

fn node(global: &Global, settings: &Settings, take_over: bool) -> anyhow::Result<Exit> {
    if global.config.is_none() {
        let error = Failure::usage("`yadokari node` needs its configuration file");
        return Err(error
            .remedy("yadokari node --config FILE; `yadokari node --help` shows one")
            .into());
    }
    let shows = serve::all_homes(settings);
    let plan = serve::Plan {
        shows,
        form: Form::Shared,
        announce: true,
        take_over,
        gateway: settings.gateway.listen.is_some(),
    };
    serve::run(settings, plan)
}

/// Commands that wait for answers need no more than one thread.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}
