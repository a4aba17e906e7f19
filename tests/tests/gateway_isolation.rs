//! The table: every user, every image, every action, each cell tried. And what is hidden answers
//! exactly as what is not there.

use anyhow::{Context, Result, bail, ensure};
use yadokari_tests::gateway::{Registry, password};
use yadokari_tests::http::{Answer, Request};
use yadokari_tests::image::{Blob, Client};
use yadokari_tests::on_every_store;
use yadokari_tests::stores::StoreKind;

on_every_store! {
    each_user_may_do_with_each_image_what_the_table_says_and_no_more => table;
    what_is_hidden_answers_as_what_is_not_there => hidden;
    a_hidden_blob_is_not_to_be_had_through_another_repository => probing;
}

/// Callers: the owner, who may read and who may write some, a stranger, nobody, an administrator.
const CALLERS: [&str; 6] = ["ada", "bob", "carol", "boss", "nobody", "ada-token"];
/// Repositories, by what was shared of them.
const REPOS: [&str; 4] = ["ada/private", "ada/read", "ada/write", "ada/public"];
const ACTIONS: [&str; 13] = [
    "manifest",
    "manifest-head",
    "blob",
    "blob-head",
    "tags",
    "referrers",
    "show",
    "listed",
    "start-upload",
    "put-manifest",
    "delete-tag",
    "share",
    "mount",
];

/// What a caller has: 0 nothing, 1 reads, 2 writes, 3 manages.
fn level(caller: &str, repo: &str) -> u8 {
    match (caller, repo) {
        ("ada" | "boss", _) => 3,
        ("ada-token", "ada/private") => 1,
        ("bob", "ada/write") => 2,
        ("bob", "ada/read") | ("bob" | "carol" | "nobody", "ada/public") => 1,
        _ => 0,
    }
}

/// What an action needs.
fn needs(action: &str) -> u8 {
    match action {
        "start-upload" | "put-manifest" | "delete-tag" => 2,
        "share" => 3,
        _ => 1,
    }
}

struct World {
    registry: Registry,
    image: Blob,
    token: String,
}

fn json(registry: &Registry, user: &str, path: &str, body: &str) -> Result<Answer> {
    let request = Request::new("POST", format!("/api/v1/{path}")).basic(user, &password(user));
    request.header("Content-Type", "application/json").body(body).send(registry.one())
}

impl World {
    fn new(kind: StoreKind) -> Result<Self> {
        let registry = Registry::start(kind)?;
        let ada = Client::new(registry.one(), "ada");
        let mut image = None;
        for repo in REPOS {
            // The same image everywhere: its blobs are the same, its repositories are not.
            image = Some(ada.push_image(repo, "1", 1, 7)?);
        }
        for share in [
            r#"{"target": "ada/read", "read_users": ["bob"]}"#,
            r#"{"target": "ada/write", "write_users": ["bob"]}"#,
            r#"{"target": "ada/public", "public": true}"#,
        ] {
            json(&registry, "ada", "share", share)?.is(200)?;
        }
        let new = r#"{"name": "t", "scopes": ["repository:ada/private:pull"]}"#;
        let made = json(&registry, "ada", "tokens", new)?.is(200)?.json()?;
        let token = made["secret"].as_str().context("a secret")?.to_owned();
        std::thread::sleep(std::time::Duration::from_millis(1200));
        Ok(Self { registry, image: image.context("an image")?, token })
    }

    fn request(&self, caller: &str, method: &str, path: &str) -> Request {
        let request = Request::new(method, path);
        match caller {
            "nobody" => request,
            "ada-token" => request.basic("ada+t", &self.token),
            user => request.basic(user, &password(user)),
        }
    }

    /// Whether an action succeeds.
    fn can(&self, caller: &str, repo: &str, action: &str) -> Result<(bool, u16)> {
        let at = self.registry.two();
        let manifest: serde_json::Value = serde_json::from_slice(&self.image.bytes)?;
        let layer = manifest["layers"][0]["digest"].as_str().context("a layer")?;
        let send = |method: &str, path: String| self.request(caller, method, &path).send(at);
        let v2 = |rest: &str| format!("/v2/{repo}/{rest}");
        let answer = match action {
            "manifest" => send("GET", v2("manifests/1"))?,
            "manifest-head" => send("HEAD", v2("manifests/1"))?,
            "blob" => send("GET", v2(&format!("blobs/{layer}")))?,
            "blob-head" => send("HEAD", v2(&format!("blobs/{layer}")))?,
            "tags" => send("GET", v2("tags/list"))?,
            "referrers" => {
                // Never 404: an empty list says nothing.
                let answer = send("GET", v2(&format!("referrers/{}", self.image.digest)))?;
                let seen = level(caller, repo) >= 1;
                return Ok((answer.status == 200 && seen, answer.status));
            }
            "show" => send("GET", format!("/api/v1/repository?name={repo}"))?,
            "listed" => {
                let answer = send("GET", "/v2/_catalog".to_owned())?;
                let status = answer.status;
                return Ok((status == 200 && answer.text().contains(&format!("{repo:?}")), status));
            }
            "start-upload" => send("POST", v2("blobs/uploads/"))?,
            "put-manifest" => self
                .request(caller, "PUT", &v2("manifests/2"))
                .header("Content-Type", yadokari_tests::image::IMAGE)
                .body(self.image.bytes.clone())
                .send(at)?,
            "delete-tag" => {
                let ada = Client::new(self.registry.one(), "ada");
                ada.put_manifest(repo, "doomed", &manifest)?;
                send("DELETE", v2("manifests/doomed"))?
            }
            "share" => self
                .request(caller, "POST", "/api/v1/share")
                .header("Content-Type", "application/json")
                .body(format!("{{\"target\": {repo:?}, \"remove_users\": [\"zoe\"]}}"))
                .send(at)?,
            "mount" => {
                if caller == "nobody" || caller == "ada-token" {
                    return Ok((level(caller, repo) >= 1, 0));
                }
                let to = format!("/v2/{caller}/mounted/blobs/uploads/?mount={layer}&from={repo}");
                let answer = send("POST", to)?;
                return Ok((answer.status == 201, answer.status));
            }
            other => bail!("no action {other}"),
        };
        Ok((answer.status < 300, answer.status))
    }
}

fn table(kind: StoreKind) -> Result<()> {
    let world = World::new(kind)?;
    let mut wrong = Vec::new();
    for caller in CALLERS {
        for repo in REPOS {
            for action in ACTIONS {
                let mut expected = level(caller, repo) >= needs(action);
                if action == "mount" && matches!(caller, "nobody" | "ada-token") {
                    expected = level(caller, repo) >= 1;
                }
                // A token manages nothing and sees no list that it was not made for.
                if caller == "ada-token" && matches!(action, "share" | "listed") {
                    expected = false;
                }
                let (can, status) = world.can(caller, repo, action)?;
                if can != expected {
                    wrong.push(format!("{caller} {action} {repo}: {can} ({status})"));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
    world.registry.is_consistent()
}

fn hidden(kind: StoreKind) -> Result<()> {
    let world = World::new(kind)?;
    let manifest: serde_json::Value = serde_json::from_slice(&world.image.bytes)?;
    let layer = manifest["layers"][0]["digest"].as_str().context("a layer")?;
    let digest = &world.image.digest;
    for caller in ["carol", "nobody", "bob"] {
        for (method, rest) in [
            ("GET", "manifests/1".to_owned()),
            ("HEAD", "manifests/1".to_owned()),
            ("GET", format!("manifests/{digest}")),
            ("GET", format!("blobs/{layer}")),
            ("HEAD", format!("blobs/{layer}")),
            ("GET", "tags/list".to_owned()),
            ("GET", format!("referrers/{digest}")),
            ("POST", "blobs/uploads/".to_owned()),
            ("POST", format!("blobs/uploads/?mount={layer}&from=ada/private")),
            ("DELETE", "manifests/1".to_owned()),
            ("DELETE", format!("blobs/{layer}")),
        ] {
            let ask = |repo: &str| -> Result<String> {
                let path = format!("/v2/{repo}/{rest}");
                let answer = world.request(caller, method, &path).send(world.registry.one())?;
                let challenge = answer.header("WWW-Authenticate").unwrap_or_default();
                let said = format!("{} {challenge} {}", answer.status, answer.text());
                Ok(said.replace(repo, "REPO"))
            };
            let (there, missing) = (ask("ada/private")?, ask("ada/absent")?);
            ensure!(there == missing, "{caller} {method} {rest}:\n{there}\n{missing}");
            ensure!(!there.starts_with('2') || rest.starts_with("referrers"), "{there}");
        }
        for path in ["repository?name=REPO", "images?repository=REPO", "rights?owner=ada"] {
            let ask = |repo: &str| -> Result<String> {
                let path = format!("/api/v1/{}", path.replace("REPO", repo));
                let answer = world.request(caller, "GET", &path).send(world.registry.one())?;
                Ok(format!("{} {}", answer.status, answer.text()))
            };
            let (there, missing) = (ask("ada/private")?, ask("ada/absent")?);
            ensure!(
                there == missing && !there.starts_with('2'),
                "{caller} {path}: {there} {missing}"
            );
        }
    }
    Ok(())
}

fn probing(kind: StoreKind) -> Result<()> {
    let registry = Registry::start(kind)?;
    let (ada, carol) = (Client::new(registry.one(), "ada"), Client::new(registry.two(), "carol"));
    let secret = Blob::random(20_000, 1);
    ada.push_blob("ada/private", &secret)?;
    // Neither mounting, nor looking, nor a half-done upload tells carol that it exists.
    let absent = Blob::random(20_000, 2);
    for blob in [&secret, &absent] {
        for from in ["&from=ada/private", ""] {
            let path = format!("/v2/carol/x/blobs/uploads/?mount={}{from}", blob.digest);
            carol.send(&carol.request("POST", &path))?.is(202)?;
        }
        carol.head(&format!("carol/x/blobs/{}", blob.digest))?.is(404)?;
    }
    // Who has the bytes may push them; that gives no way to anything else of ada's.
    carol.push_blob("carol/x", &secret)?;
    carol.head(&format!("ada/private/blobs/{}", secret.digest))?.is(404)?;
    Ok(())
}
