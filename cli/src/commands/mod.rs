//! What each command does: asks the instance, prints facts, gives the exit code.

use clap::CommandFactory;

use crate::args::{Cli, Command, SetupCommand};
use crate::config::Settings;
use crate::doctor;
use crate::exit::Exit;
use crate::output;
use crate::setup::podman;

/// Runs one command.
///
/// # Errors
/// What stopped it; [`crate::exit`] turns it into words and a code.
pub fn run(command: Command, settings: Settings) -> anyhow::Result<Exit> {
    match command {
        Command::Completion(arguments) => {
            let mut script = Vec::new();
            clap_complete::generate(arguments.shell, &mut Cli::command(), "yadokari", &mut script);
            output::write_out(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Done)
        }
        Command::Setup(SetupCommand::Podman(arguments)) => {
            let home = std::env::home_dir().unwrap_or_default();
            let outcome = podman::run(&home, arguments.system, arguments.dry_run)?;
            output::print(arguments.output, &outcome, podman::show)?;
            Ok(Exit::Done)
        }
        Command::Doctor(output) => {
            let report = runtime()?.block_on(doctor::examine(&doctor::Subject::caller(settings)));
            output::print(output, &report, doctor::show)?;
            Ok(if report.ready { Exit::Done } else { Exit::Failed })
        }
        _ => unimplemented!(),
    }
}

/// Commands that wait for answers need no more than one thread.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
