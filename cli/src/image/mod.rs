//! `yadokari image …`: the registry's management API from the command line.
//!
//! [`place`] finds the registry and [`credentials`] what to say there, [`client`] speaks to it;
//! the rest are the commands.

mod client;
mod credentials;
mod list;
mod manage;
mod place;
mod tokens;

use crate::args::{ImageArgs, ImageCommand, Output};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::output;
use client::Client;
use yadokari_gateway::api::WhoAmI;

/// Runs one of `yadokari image …`.
///
/// # Errors
/// The registry's reason, or why it cannot be reached.
pub fn run(settings: &Settings, arguments: ImageArgs) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let ImageArgs { to, command } = arguments;
        // A registry may stand in front of the first name, as podman has it.
        let mut names = Names::new(settings, to);
        match command {
            ImageCommand::Ls { of, untagged, output } => {
                let of = of.map(|of| names.bare(&of)).transpose()?;
                let mut client = names.client()?;
                list::ls(&mut client, of.as_deref(), untagged, output).await
            }
            ImageCommand::Show { image, output } => {
                let image = names.bare(&image)?;
                list::show(&mut names.client()?, &image, output).await
            }
            ImageCommand::Tags { name, output } => {
                let name = names.bare(&name)?;
                list::tags(&mut names.client()?, &name, output).await
            }
            ImageCommand::Rm { images, repository, output } => {
                let images: Result<Vec<_>, _> = images.iter().map(|i| names.bare(i)).collect();
                let images = images?;
                manage::rm(&mut names.client()?, &images, repository, output).await
            }
            ImageCommand::Share(mut share) => {
                share.target = names.bare(&share.target)?;
                manage::share(&mut names.client()?, share).await
            }
            ImageCommand::Du { owner, output } => {
                list::du(&mut names.client()?, owner, output).await
            }
            ImageCommand::Quota { owner, size, all, output } => {
                manage::quota(&mut names.client()?, owner, size, all, output).await
            }
            ImageCommand::Chown { owner, authority, uid, login, output } => {
                let to = manage::NewOwner { authority, uid, login };
                manage::chown(&mut names.client()?, &owner, to, output).await
            }
            ImageCommand::Group(command) => manage::group(&mut names.client()?, command).await,
            ImageCommand::Token(command) => tokens::run(&mut names.client()?, command).await,
            ImageCommand::Whoami(output) => who_am_i(&mut names.client()?, output).await,
        }
    })
}

/// The registry, as options and names say.
struct Names<'a> {
    settings: &'a Settings,
    to: crate::args::RegistryArgs,
}

impl<'a> Names<'a> {
    fn new(settings: &'a Settings, to: crate::args::RegistryArgs) -> Self {
        Self { settings, to }
    }

    /// A name without the registry in front of it, which is remembered.
    fn bare(&mut self, name: &str) -> anyhow::Result<String> {
        let Some((registry, rest)) = place::split(name) else { return Ok(name.to_owned()) };
        match &self.to.registry {
            Some(other) if place::host_of(other) != registry => {
                let text = format!("`{name}` is not in the registry {other}");
                return Err(Failure::usage(text).remedy("name one registry").into());
            }
            Some(_) => {}
            None => self.to.registry = Some(registry.to_owned()),
        }
        Ok(rest.to_owned())
    }

    fn client(&self) -> anyhow::Result<Client> {
        let place = place::find(self.settings, self.to.registry.as_deref())?;
        let credentials = credentials::find(&place.host, self.to.authfile.as_deref())?;
        Client::new(place, credentials)
    }
}

async fn who_am_i(client: &mut Client, output: Output) -> anyhow::Result<Exit> {
    let me: WhoAmI = client.get("whoami", &[]).await?;
    output::print(output, &me, |me| {
        let groups: Vec<&str> = me.groups.iter().map(String::as_str).collect();
        output::facts(&[
            ("user", me.name.clone().unwrap_or_else(|| "nobody in particular".to_owned())),
            ("known by", me.proof.clone()),
            ("administrator", if me.admin { "yes" } else { "no" }.to_owned()),
            ("groups", groups.join(", ")),
        ])
    })?;
    Ok(Exit::Done)
}
