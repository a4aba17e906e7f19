//! What the management API and its clients say to each other: the JSON below `/api/v1/`.
//!
//! Field names are stable. Sizes are bytes, times are seconds since 1970. `GET` takes its
//! parameters from the query, everything else a JSON body, which a page in a browser cannot send
//! unasked.
//!
//! ```text
//! GET    whoami                                     WhoAmI
//! GET    repositories?owner=&last=&n=               Listing<Repository>
//! GET    repository?name=                           Repository
//! DELETE repository        {"name"}                 Done
//! GET    images?repository=&last=&n=                Listing<Image>
//! GET    image?repository=&reference=               Image
//! DELETE image             {"repository","reference"}  Done
//! GET    rights?owner=                              Sharing
//! POST   share             Share                    Sharing
//! GET    usage?owner=                               Usage
//! GET    owners?last=&n=                            Listing<Usage>      (administrators)
//! PUT    quota             SetQuota                 Usage               (administrators)
//! POST   owner             Reassign                 Usage               (administrators)
//! POST   group             Group                    Usage               (administrators)
//! GET    tokens?user=                               Vec<RobotInfo>
//! POST   tokens            NewToken                 MadeToken
//! DELETE tokens            {"name","user"}          Done
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use yadokari_catalog::OwnerName;

pub use crate::auth::RobotInfo;

/// What every path begins with.
pub const PREFIX: &str = "/api/v1/";
/// Entries of one page, at most.
pub const PAGE_MAX: usize = 200;

/// Who the registry takes the caller for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WhoAmI {
    /// `None` for nobody in particular.
    pub name: Option<String>,
    /// May do everything.
    pub admin: bool,
    /// By the authority's names.
    pub groups: BTreeSet<String>,
    /// `password`, `token`, `kernel` or `none`.
    pub proof: String,
}

/// A page of a list; `next` is the `last` of the following one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listing<T> {
    /// In ascending order.
    pub items: Vec<T>,
    /// Where to go on.
    pub next: Option<String>,
}

/// A repository that the caller may read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Repository {
    /// Its name.
    pub name: String,
    /// Number of tags.
    pub tags: u64,
    /// Number of manifests.
    pub manifests: u64,
    /// Manifests that nothing keeps.
    pub untagged: u64,
    /// Bytes of all blobs and manifests, each once.
    pub bytes: u64,
    /// Last push.
    pub pushed: Option<u64>,
    /// Everybody may pull.
    pub public: bool,
    /// What the caller may do: `read`, `write`, `manage`.
    pub permission: String,
}

/// A manifest of a repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Image {
    /// In which repository.
    pub repository: String,
    /// Its digest.
    pub digest: String,
    /// Tags that point to it.
    pub tags: Vec<String>,
    /// Its media type.
    pub media_type: String,
    /// What it is, if it is no image.
    pub artifact_type: Option<String>,
    /// Bytes of manifest, configuration and layers.
    pub bytes: u64,
    /// Number of layers.
    pub layers: usize,
    /// Manifests that it lists.
    pub children: Vec<String>,
    /// What it refers to.
    pub subject: Option<String>,
    /// When it was made, if it says so.
    pub created: Option<u64>,
    /// When it was pushed.
    pub pushed: u64,
    /// Since when nothing keeps it; it goes some time after that.
    pub untagged_since: Option<u64>,
}

/// Who else may do what with one repository, or with all that are not named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Everybody may pull.
    pub public: bool,
    /// Users who may pull.
    pub read_users: BTreeSet<String>,
    /// Groups whose members may pull.
    pub read_groups: BTreeSet<String>,
    /// Users who may push and delete as well.
    pub write_users: BTreeSet<String>,
    /// Groups whose members may push and delete as well.
    pub write_groups: BTreeSet<String>,
}

/// All that an owner shares.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sharing {
    /// Whose repositories.
    pub owner: String,
    /// For repositories that are not named below.
    pub default: Access,
    /// By whole names.
    pub repositories: BTreeMap<String, Access>,
}

/// A change of what is shared.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// `OWNER/REPOSITORY`, or `OWNER` for all that are not named.
    pub target: String,
    /// Take everything back first.
    #[serde(default)]
    pub private: bool,
    /// Everybody may pull, or no longer.
    #[serde(default)]
    pub public: Option<bool>,
    /// Users who may pull from now on.
    #[serde(default)]
    pub read_users: Vec<OwnerName>,
    /// Groups that may pull from now on.
    #[serde(default)]
    pub read_groups: Vec<String>,
    /// Users who may push from now on.
    #[serde(default)]
    pub write_users: Vec<OwnerName>,
    /// Groups that may push from now on.
    #[serde(default)]
    pub write_groups: Vec<String>,
    /// Users who may do nothing any more.
    #[serde(default)]
    pub remove_users: Vec<OwnerName>,
    /// Groups that may do nothing any more.
    #[serde(default)]
    pub remove_groups: Vec<String>,
}

/// What an owner uses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// Whose.
    pub owner: String,
    /// `user` or `group`; `None` before the first push.
    pub kind: Option<String>,
    /// Managers of a group.
    pub managers: BTreeSet<String>,
    /// Where a user is known.
    pub authority: Option<String>,
    /// And by which id.
    pub uid: Option<u32>,
    /// Bytes, each blob once.
    pub used: u64,
    /// Bytes held for uploads under way.
    pub reserved: u64,
    /// Number of blobs and manifests.
    pub blobs: u64,
    /// `None` is no limit.
    pub limit: Option<u64>,
    /// The limit is the configured one.
    pub default_limit: bool,
}

/// A new quota; neither is the configured one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetQuota {
    /// Whose.
    pub owner: OwnerName,
    /// So many bytes.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// None at all.
    #[serde(default)]
    pub unlimited: bool,
}

/// A name goes to another person.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reassign {
    /// The name, with all that it owns.
    pub owner: OwnerName,
    /// `system`, `ldap`, `htpasswd`.
    pub authority: String,
    /// The numeric id there.
    #[serde(default)]
    pub uid: Option<u32>,
    /// The name there, when it is another one.
    #[serde(default)]
    pub login: Option<String>,
}

/// A group that owns repositories.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: OwnerName,
    /// Users who may do everything with what it owns.
    pub managers: BTreeSet<OwnerName>,
    /// It exists: change its managers.
    #[serde(default)]
    pub change: bool,
}

/// A robot token to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Its name.
    pub name: String,
    /// `repository:ada/*:pull`, at least one.
    pub scopes: Vec<String>,
    /// Seconds since 1970; never without.
    #[serde(default)]
    pub expires: Option<u64>,
}

/// A robot token with its secret, which is never shown again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MadeToken {
    /// The token.
    #[serde(flatten)]
    pub info: RobotInfo,
    /// What it logs in with.
    pub secret: String,
}

/// Names what a `DELETE` means.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Remove {
    /// A repository or token.
    pub name: String,
    /// A token's user; the caller without.
    pub user: Option<OwnerName>,
    /// An image's repository.
    pub repository: String,
    /// An image's tag or digest.
    pub reference: String,
}

/// It is done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// What is gone: tags, digests, names.
    pub removed: Vec<String>,
}

/// An error, in the form of the distribution specification.
#[derive(Clone, Debug, Deserialize)]
pub struct Errors {
    /// At least one.
    pub errors: Vec<OneError>,
}

/// One of them.
#[derive(Clone, Debug, Deserialize)]
pub struct OneError {
    /// Its code.
    pub code: String,
    /// For people.
    pub message: String,
}
