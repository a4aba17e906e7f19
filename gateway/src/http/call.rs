//! One request of the registry's API: who makes it, and what they may do.
//!
//! The order of questions keeps secrets: first who calls, then whether their token was made for
//! this at all, which says nothing of what exists, and only then their rights. What a caller may
//! not see is answered exactly as what is not there.

use std::sync::Arc;

use http::request::Parts;
use yadokari_catalog::{Permission, RepoName};

use super::app::App;
use super::failure::Failure;
use super::request::{self, Connection};
use crate::auth::{Action, Caller, ChallengeError, RequestFacts, Scope, Who};
use crate::oci::{ApiError, Code, Query};
use crate::registry::{About, explain};

/// A request without its body.
#[derive(Debug)]
pub struct Call {
    pub app: Arc<App>,
    pub connection: Arc<Connection>,
    /// Its number in the log.
    pub id: u64,
    pub parts: Parts,
    pub caller: Caller,
}

impl Call {
    /// Asks who it is.
    ///
    /// # Errors
    /// When authorization is wrong, or cannot be checked.
    pub async fn identify(
        app: &Arc<App>,
        connection: &Arc<Connection>,
        parts: Parts,
        id: u64,
        needs: &[Scope],
    ) -> Result<Self, (Failure, Parts)> {
        let who = app.auth.who(&facts(connection, &parts, needs)).await;
        match who {
            Ok(caller) => {
                let (app, connection) = (Arc::clone(app), Arc::clone(connection));
                Ok(Self { app, connection, id, parts, caller })
            }
            Err(refusal) => Err((refusal.into(), parts)),
        }
    }

    /// Lets the caller through to reading, or says that nothing is there.
    ///
    /// # Errors
    /// A challenge for who has not said who they are; `about` unknown for everybody else.
    pub async fn may_read(&self, repo: &RepoName, about: About) -> Result<(), Failure> {
        if self.permission(repo, Action::Pull).await? >= Permission::Read {
            return Ok(());
        }
        if self.caller.is_anonymous() {
            return Err(self.challenge(repo, &[Action::Pull], None));
        }
        Err(about.unknown().into())
    }

    /// Lets the caller through to changing something. The owner's record is made on the way: this
    /// is the first push of many.
    ///
    /// # Errors
    /// A challenge, or `DENIED`, whether the repository exists or not.
    pub async fn may_change(&self, repo: &RepoName, action: Action) -> Result<(), Failure> {
        self.claim(repo).await?;
        if self.permission(repo, action).await? >= Permission::Write {
            return Ok(());
        }
        if self.caller.is_anonymous() {
            return Err(self.challenge(repo, &[Action::Pull, action], None));
        }
        Err(ApiError::new(Code::Denied).into())
    }

    /// May the caller mount from there? A person's rights count, not the scopes of their token:
    /// a client asks for those of the repositories that it knows of, and a mount that finds its
    /// own source is of one that it does not know. Robots stay below their ceiling.
    ///
    /// # Errors
    /// What the store says.
    pub async fn may_mount_from(&self, repo: &RepoName) -> Result<bool, Failure> {
        let robot = matches!(self.caller.who, Who::Robot(_));
        if robot && !self.caller.ceiling_allows(repo.as_str(), Action::Pull) {
            return Ok(false);
        }
        let caller = self.caller.for_catalog();
        let permission = self.app.registry.catalog.permission(&caller, repo).await;
        let permission = permission.map_err(|error| explain(About::Repository, error))?;
        Ok(permission >= Permission::Read)
    }

    async fn permission(&self, repo: &RepoName, action: Action) -> Result<Permission, Failure> {
        if !self.caller.ceiling_allows(repo.as_str(), action) {
            return Err(self.challenge(repo, &[action], Some(ChallengeError::InsufficientScope)));
        }
        let caller = self.caller.for_catalog();
        let permission = self.app.registry.catalog.permission(&caller, repo).await;
        let permission = permission.map_err(|error| explain(About::Repository, error))?;
        Ok(self.caller.capped(repo.as_str(), permission))
    }

    /// A user who is about to push below their own name has a record from now on.
    async fn claim(&self, repo: &RepoName) -> Result<(), Failure> {
        let Some(user) = self.caller.user() else { return Ok(()) };
        if user.name.as_str() != repo.owner_str() {
            return Ok(());
        }
        let catalog = &self.app.registry.catalog;
        let claimed = catalog.claim_user(&user.name, &user.identity, true).await;
        claimed.map_err(|error| explain(About::Repository, error))?;
        Ok(())
    }

    fn challenge(
        &self,
        repo: &RepoName,
        actions: &[Action],
        error: Option<ChallengeError>,
    ) -> Failure {
        let needs = [Scope::repository(repo.clone(), actions.iter().copied())];
        let facts = facts(&self.connection, &self.parts, &needs);
        self.app.auth.challenge(&facts, error).into()
    }

    /// A challenge that asks for no scope: for `/v2/`.
    #[must_use]
    pub fn challenge_anybody(&self) -> Failure {
        let facts = facts(&self.connection, &self.parts, &[]);
        self.app.auth.challenge(&facts, None).into()
    }

    /// A challenge that asks for the list of repositories.
    #[must_use]
    pub fn challenge_catalog(&self) -> Failure {
        let needs = [Scope::catalog()];
        let facts = facts(&self.connection, &self.parts, &needs);
        self.app.auth.challenge(&facts, Some(ChallengeError::InsufficientScope)).into()
    }

    /// May the caller read there? A token that was made for something else is told so.
    ///
    /// # Errors
    /// A challenge; what the store says.
    pub async fn can_read(&self, repo: &RepoName) -> Result<bool, Failure> {
        Ok(self.permission(repo, Action::Pull).await? >= Permission::Read)
    }

    /// The decoded query.
    ///
    /// # Errors
    /// When it has too many parameters.
    pub fn query(&self) -> Result<Query<'_>, ApiError> {
        Query::parse(self.parts.uri.query()).ok_or_else(|| {
            ApiError::with(Code::Unsupported, "too many query parameters").status(414)
        })
    }

    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &http::header::HeaderName) -> Option<&str> {
        request::text(&self.parts.headers, name)
    }

    /// Where something of a repository is found: relative, or below the address that the outside
    /// knows.
    #[must_use]
    pub fn location(&self, path: &str) -> String {
        match &self.app.external_base {
            None => path.to_owned(),
            Some(base) => format!("{base}{path}"),
        }
    }

    /// The line of the audit log: who changed what, from where.
    pub fn audit(&self, action: &'static str, repo: &RepoName, what: &str) {
        tracing::info!(
            target: "yadokari::audit",
            request = self.id,
            who = %self.caller.label(),
            proof = ?self.caller.proof,
            from = %self.connection.client(&self.parts.headers),
            action,
            repository = %repo,
            what,
            "audit"
        );
    }
}

fn facts<'a>(connection: &'a Connection, parts: &'a Parts, needs: &'a [Scope]) -> RequestFacts<'a> {
    RequestFacts {
        connection: &connection.facts,
        client: connection.client(&parts.headers),
        version: parts.version,
        authority: parts.uri.authority().map(http::uri::Authority::as_str),
        headers: &parts.headers,
        needs,
    }
}
