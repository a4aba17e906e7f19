//! Scopes, as Docker's token specification has them: `repository:ada/app:pull,push`.
//!
//! Pure. A scope asks for something or is the ceiling of a token. Robot tokens may name many
//! repositories at once by a pattern, `ada/*`; nobody else can.
//!
//! ```text
//! scope   = type [ "(" class ")" ] ":" name ":" action *( "," action )
//! scopes  = scope *( " " scope )
//! name    = [ host [ ":" port ] "/" ] path
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use yadokari_catalog::RepoName;

/// More in one request than any client asks for.
pub const SCOPES_MAX: usize = 64;

/// What is done to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Read manifests, blobs, tags and referrers.
    Pull,
    /// Upload, mount, tag.
    Push,
    /// Delete tags, manifests and blobs.
    Delete,
}

impl Action {
    const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    /// As it stands in a scope.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }
}

/// What a scope is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// One repository.
    Repository(RepoName),
    /// Every repository below a prefix that ends in `/`; the empty one is all of them.
    Below(String),
    /// The list of repositories.
    Catalog,
}

/// One scope. Of actions that it does not know a parser takes none; without any it is no scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// On what.
    pub target: Target,
    /// What; empty only for the catalogue.
    pub actions: BTreeSet<Action>,
}

/// Why a text is no scope that can be granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Not `type:name:actions`.
    #[error("a scope is `repository:NAME:ACTIONS`, such as `repository:ada/app:pull,push`")]
    Malformed,
    /// A type that nobody knows here.
    #[error("only scopes of the type `repository` (and `registry:catalog:*`) can be granted")]
    Type,
    /// Against the grammar of repository names.
    #[error("`{0}` is not a valid repository name")]
    Name(String),
    /// None of pull, push, delete and `*`.
    #[error("the actions are pull, push, delete, or * for all")]
    Actions,
}

impl Scope {
    /// Of one repository.
    #[must_use]
    pub fn repository(name: RepoName, actions: impl IntoIterator<Item = Action>) -> Self {
        Self { target: Target::Repository(name), actions: actions.into_iter().collect() }
    }

    /// The list of repositories.
    #[must_use]
    pub fn catalog() -> Self {
        Self { target: Target::Catalog, actions: BTreeSet::new() }
    }

    /// Asks for the list of repositories.
    #[must_use]
    pub fn is_catalog(&self) -> bool {
        self.target == Target::Catalog
    }

    /// Contains this action on this repository.
    #[must_use]
    pub fn covers_repository(&self, repository: &str, action: Action) -> bool {
        self.actions.contains(&action)
            && match &self.target {
                Target::Repository(name) => name.as_str() == repository,
                Target::Below(prefix) => repository.starts_with(prefix.as_str()),
                Target::Catalog => false,
            }
    }

    /// Scopes of a request: one parameter may hold several, separated by spaces. What cannot be
    /// granted is left out, as the token specification wants it.
    #[must_use]
    pub fn asked<'a>(parameters: impl Iterator<Item = &'a str>) -> Vec<Self> {
        let words = parameters.flat_map(str::split_ascii_whitespace).take(SCOPES_MAX);
        words.filter_map(|word| word.parse().ok()).filter(Self::is_exact).collect()
    }

    /// For one of a robot's scopes: patterns are allowed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn with_pattern(text: &str) -> Result<Self, ScopeError> {
        text.parse()
    }

    /// What of it lies within a ceiling.
    #[must_use]
    pub fn within(&self, ceiling: &[Self]) -> Option<Self> {
        match &self.target {
            Target::Catalog => ceiling.iter().any(Self::is_catalog).then(|| self.clone()),
            Target::Repository(name) => {
                let left = |action: &&Action| {
                    ceiling.iter().any(|c| c.covers_repository(name.as_str(), **action))
                };
                let actions: BTreeSet<Action> = self.actions.iter().filter(left).copied().collect();
                (!actions.is_empty()).then(|| Self { target: self.target.clone(), actions })
            }
            // Only robots have patterns, and nobody asks for one.
            Target::Below(_) => None,
        }
    }

    fn is_exact(&self) -> bool {
        !matches!(self.target, Target::Below(_))
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let (kind, rest) = text.split_once(':').ok_or(ScopeError::Malformed)?;
        // A port in the name leaves colons there, so the actions are what follows the last.
        let (name, actions) = rest.rsplit_once(':').ok_or(ScopeError::Malformed)?;
        let kind = kind.split_once('(').map_or(kind, |(kind, _class)| kind);
        match kind {
            "registry" if name == "catalog" => Ok(Self::catalog()),
            "repository" => Ok(Self { target: target(name)?, actions: parse_actions(actions)? }),
            _ => Err(ScopeError::Type),
        }
    }
}

fn target(name: &str) -> Result<Target, ScopeError> {
    if name == "*" {
        return Ok(Target::Below(String::new()));
    }
    let wrong = || ScopeError::Name(name.chars().take(80).collect());
    match name.strip_suffix("/*") {
        Some(prefix) => {
            prefix.parse::<RepoName>().map_err(|_| wrong())?;
            Ok(Target::Below(format!("{prefix}/")))
        }
        None => name.parse().map(Target::Repository).map_err(|_| wrong()),
    }
}

fn parse_actions(text: &str) -> Result<BTreeSet<Action>, ScopeError> {
    let mut actions = BTreeSet::new();
    for word in text.split(',') {
        match word {
            "*" => actions.extend(Action::ALL),
            _ => actions.extend(Action::ALL.into_iter().find(|action| action.as_str() == word)),
        }
    }
    if actions.is_empty() { Err(ScopeError::Actions) } else { Ok(actions) }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match &self.target {
            Target::Catalog => return f.write_str("registry:catalog:*"),
            Target::Repository(name) => ("repository", name.as_str().to_owned()),
            Target::Below(prefix) => ("repository", format!("{prefix}*")),
        };
        write!(f, "{kind}:{name}:")?;
        for (n, action) in self.actions.iter().enumerate() {
            f.write_str(if n == 0 { "" } else { "," })?;
            f.write_str(action.as_str())?;
        }
        Ok(())
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    #[test]
    fn scopes_are_read_as_clients_write_them() {
        assert_eq!(
            scope("repository:ada/app:pull,push").to_string(),
            "repository:ada/app:pull,push"
        );
        assert_eq!(
            scope("repository:ada/app:push,pull,foo").to_string(),
            "repository:ada/app:pull,push"
        );
        assert_eq!(
            scope("repository(plugin):ada/app:*").to_string(),
            "repository:ada/app:pull,push,delete"
        );
        assert_eq!(scope("registry:catalog:*"), Scope::catalog());
        for bad in [
            "",
            ":",
            "::",
            "repository",
            "repository:ada",
            "repository:ada:",
            "repository:Ada:pull",
            "repository:../x:pull",
            "repository:ada:fly",
            "user:ada:pull",
            "registry:x:*",
            "repository:*/a:pull",
            "repository:a/*/b:pull",
            "repository:a*:pull",
        ] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_granted_is_left_out_and_patterns_are_for_robots() {
        let asked = Scope::asked(
            ["repository:a:pull repository:b:push", "nonsense", "repository:ada/*:pull"]
                .into_iter(),
        );
        assert_eq!(asked, [scope("repository:a:pull"), scope("repository:b:push")]);
        let many = "repository:a:pull ".repeat(1000);
        assert_eq!(Scope::asked([many.as_str()].into_iter()).len(), SCOPES_MAX);
    }

    #[test]
    fn a_ceiling_only_takes_away() {
        let ceiling = [scope("repository:ada/*:pull"), scope("repository:ada/app:push")];
        let left = |text: &str| scope(text).within(&ceiling).map(|s| s.to_string());
        assert_eq!(left("repository:ada/app:*").as_deref(), Some("repository:ada/app:pull,push"));
        assert_eq!(
            left("repository:ada/x/y:pull,push").as_deref(),
            Some("repository:ada/x/y:pull")
        );
        assert_eq!(left("repository:adam/x:pull"), None);
        assert_eq!(left("repository:ada:pull"), None);
        assert_eq!(left("registry:catalog:*"), None);
    }
}
