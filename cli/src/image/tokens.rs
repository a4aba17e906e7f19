//! Tokens for programs: create, ls, rm.

use std::time::{SystemTime, UNIX_EPOCH};

use hyper::Method;
use yadokari_gateway::api::{Done, MadeToken, NewToken, Remove, RobotInfo};

use super::client::Client;
use super::list::ago;
use crate::args::{Expiry, Output, TokenCommand};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::size::show_duration;

/// Runs one of `yadokari image token …`.
pub async fn run(client: &mut Client, command: TokenCommand) -> anyhow::Result<Exit> {
    match command {
        TokenCommand::Create { name, scope, expires, output } => {
            let expires = match expires {
                Expiry::Never => None,
                Expiry::After(after) => Some(now().saturating_add(after.as_secs())),
            };
            let body = NewToken { name, scopes: scope, expires };
            let made: MadeToken = client.send(Method::POST, "tokens", &body).await?;
            output::print(output, &made, |made| {
                output::facts(&[
                    ("user name", made.info.login.clone()),
                    ("password", made.secret.clone()),
                    ("good for", left(made.info.expires)),
                ]) + "The password is not shown again.\n"
            })?;
        }
        TokenCommand::Ls { of, output } => {
            let query: Vec<(&str, &str)> =
                of.as_deref().map(|user| ("user", user)).into_iter().collect();
            let tokens: Vec<RobotInfo> = client.get("tokens", &query).await?;
            output::print(output, &tokens, |tokens| table(tokens))?;
        }
        TokenCommand::Rm { names, of, output } => rm(client, names, of, output).await?,
    }
    Ok(Exit::Done)
}

async fn rm(
    client: &mut Client,
    names: Vec<String>,
    of: Option<String>,
    output: Output,
) -> anyhow::Result<()> {
    let user = of.map(|user| {
        user.parse().map_err(|error| Failure::usage(format!("user `{user}`: {error}")))
    });
    let user = user.transpose()?;
    let mut removed = Vec::new();
    for name in names {
        let body = Remove { name, user: user.clone(), ..Remove::default() };
        let done: Done = client.send(Method::DELETE, "tokens", &body).await?;
        removed.extend(done.removed);
    }
    output::print(output, &Done { removed }, |done| {
        done.removed.iter().map(|name| format!("removed {name}\n")).collect()
    })
}

fn table(tokens: &[RobotInfo]) -> String {
    let row = |token: &RobotInfo| {
        let scopes: Vec<String> = token.scopes.iter().map(ToString::to_string).collect();
        let left = if token.expired { "expired".to_owned() } else { left(token.expires) };
        vec![token.name.clone(), token.login.clone(), left, ago(token.created), scopes.join(" ")]
    };
    let head = ["token", "logs in as", "good for", "made", "scopes"];
    output::table(&head, &[], &tokens.iter().map(row).collect::<Vec<_>>())
}

fn left(expires: Option<u64>) -> String {
    expires.map_or_else(|| "ever".to_owned(), |at| show_duration(at.saturating_sub(now())))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
