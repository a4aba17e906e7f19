//! Who may log in: a real slapd, PAM with real users, htpasswd, TLS, tokens for programs.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use yadokari_tests::gateway::{Options, Registry, password};
use yadokari_tests::http::{Answer, Request};
use yadokari_tests::image::Client;
use yadokari_tests::process;
use yadokari_tests::slapd::{Slapd, certificates};
use yadokari_tests::stores::StoreKind;
use yadokari_tests::user::User;

fn with(sections: String) -> Result<Registry> {
    let options = Options { lines: vec![sections], ..Options::default() };
    Registry::start_with(StoreKind::File, options)
}

/// A gateway that shows `cert.pem` of a directory.
fn with_tls(dir: &Path) -> Result<Registry> {
    let lines = vec![format!(
        "tls_certificate = {:?}\ntls_key = {:?}",
        dir.join("cert.pem").display().to_string(),
        dir.join("key.pem").display().to_string()
    )];
    Registry::process(StoreKind::File, Options { lines, ..Options::default() })
}

/// Asks the first gateway as somebody.
fn ask(registry: &Registry, login: &str, secret: &str) -> Result<Answer> {
    Request::new("GET", "/api/v1/whoami").basic(login, secret).send(registry.one())
}

fn who(registry: &Registry, login: &str, secret: &str) -> Result<Value> {
    ask(registry, login, secret)?.is(200)?.json()
}

#[test]
fn users_of_a_directory_log_in_with_their_groups_by_ldaps_and_by_starttls() -> Result<()> {
    let slapd = Slapd::start()?;
    for (url, how) in [(slapd.tls_url(), ""), (slapd.url(), "starttls = true")] {
        let registry = with(slapd.config(&url, how))?;
        let lena = who(&registry, "lena", "lena-secret")?;
        ensure!(lena["name"] == "lena" && lena["admin"] == false, "{lena}");
        ensure!(lena["groups"] == serde_json::json!(["crew", "lab"]), "{lena}");
        // Directories compare without case: it is the same person.
        ensure!(who(&registry, "LENA", "lena-secret")?["name"] == "lena");
        for wrong in ["", "x", "searcher-secret"] {
            ask(&registry, "lena", wrong)?.is(401)?;
        }
        for injection in ["*", "lena)(uid=*", "lena*", "nobody", "\\2a"] {
            ask(&registry, injection, "lena-secret")?.is(401)?;
        }
        // Users of the file are asked for first, and are other people.
        ensure!(who(&registry, "ada", &password("ada"))?["name"] == "ada");
    }
    Ok(())
}

#[test]
fn a_group_of_the_directory_may_pull_what_was_shared_with_it() -> Result<()> {
    let slapd = Slapd::start()?;
    let registry = with(slapd.config(&slapd.tls_url(), ""))?;
    Client::new(registry.one(), "ada").push_image("ada/app", "1", 1, 1)?;
    let pull = |login: &str, secret: &str| {
        let request = Request::new("GET", "/v2/ada/app/manifests/1");
        request.basic(login, secret).send(registry.two())
    };
    pull("lena", "lena-secret")?.is(404)?;
    let share = r#"{"target": "ada/app", "read_groups": ["lab"]}"#;
    let request = Request::new("POST", "/api/v1/share").basic("ada", &password("ada"));
    request.header("Content-Type", "application/json").body(share).send(registry.one())?.is(200)?;
    std::thread::sleep(Duration::from_secs(1));
    pull("lena", "lena-secret")?.is(200)?;
    pull("bob", &password("bob"))?.is(404)?;
    Ok(())
}

#[test]
fn an_outage_of_the_directory_touches_new_logins_alone() -> Result<()> {
    let mut slapd = Slapd::start()?;
    let registry = with(slapd.config(&slapd.tls_url(), "timeout = \"5s\""))?;
    who(&registry, "lena", "lena-secret")?;
    let token = Request::new("GET", "/token?scope=repository:lena/app:push,pull")
        .basic("lena", "lena-secret")
        .send(registry.one())?
        .is(200)?
        .json()?;
    let bearer = format!("Bearer {}", token["token"].as_str().context("a token")?);
    slapd.kill();
    let begun = Instant::now();
    who(&registry, "lena", "lena-secret").context("remembered")?;
    let upload = Request::new("POST", "/v2/lena/app/blobs/uploads/");
    upload.header("Authorization", &bearer).send(registry.two())?.is(202).context("signed")?;
    ensure!(who(&registry, "ada", &password("ada"))?["name"] == "ada", "users of the file");
    ask(&registry, "Lena", "lena-secret")?.is(503).context("a new login")?;
    ensure!(begun.elapsed() < Duration::from_secs(60), "an outage must not hold anybody up");
    slapd.restart()?;
    ask(&registry, "Lena", "lena-secret")?.is(200).context("it is back")?;
    Ok(())
}

#[test]
fn a_name_that_images_cannot_have_needs_a_mapping() -> Result<()> {
    let slapd = Slapd::start()?;
    let config = slapd.config(&slapd.tls_url(), "");
    let registry = with(config.clone())?;
    let refused = ask(&registry, "Max.M", "max-secret")?.is(403)?;
    ensure!(refused.text().contains("Max.M"), "{}", refused.text());
    let registry = with(format!("{config}[auth.names]\n\"Max.M\" = \"max\"\n"))?;
    ensure!(who(&registry, "Max.M", "max-secret")?["name"] == "max");
    Ok(())
}

#[test]
fn one_name_is_one_persons_whoever_knows_them() -> Result<()> {
    let slapd = Slapd::start()?;
    let ada = "[auth.names]\nlena = \"ada\"\n";
    let config = format!("{}{ada}", slapd.config(&slapd.tls_url(), ""));
    let other = with(config)?;
    // There it is lena's, and the file's ada has another name or none.
    ensure!(who(&other, "lena", "lena-secret")?["name"] == "ada");
    ask(&other, "ada", &password("ada"))?.is(403)?;
    Ok(())
}

/// A service of PAM that is gone with the test.
struct Service(String);

impl Service {
    fn new(name: &str, text: &str) -> Result<Self> {
        let name = format!("yadokari-test-{name}-{}", std::process::id());
        std::fs::write(format!("/etc/pam.d/{name}"), text)?;
        Ok(Self(name))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(format!("/etc/pam.d/{}", self.0));
    }
}

fn set_password(user: &User, password: &str) -> Result<()> {
    process::sh(&format!("echo '{}:{password}' | chpasswd", user.name)).map(|_| ())
}

#[test]
fn users_of_the_machine_log_in_by_pam_and_root_does_not() -> Result<()> {
    let homes = tempfile::tempdir()?;
    let user = User::create(homes.path())?;
    set_password(&user, "right")?;
    let service =
        Service::new("unix", "auth required pam_unix.so\naccount required pam_unix.so\n")?;
    let registry = with(format!("[auth.pam]\nservice = {:?}\n", service.0))?;
    let me = who(&registry, &user.name, "right")?;
    ensure!(me["name"] == user.name.as_str() && me["proof"] == "password", "{me}");
    ensure!(
        me["groups"].as_array().is_some_and(|g| g.contains(&user.name.as_str().into())),
        "{me}"
    );
    ask(&registry, &user.name, "wrong")?.is(401)?;
    ask(&registry, &user.name, "")?.is(401)?;
    ask(&registry, "root", "right")?.is(401)?;
    ask(&registry, "daemon", "")?.is(401)?;
    // A locked account is refused although its password would be right.
    process::ok(Command::new("usermod").args(["-L", &user.name]))?;
    let other = with(format!("[auth.pam]\nservice = {:?}\n", service.0))?;
    ask(&other, &user.name, "right")?.is(401)?;
    Ok(())
}

#[test]
fn a_module_of_pam_that_hangs_is_an_outage_and_holds_up_nobody() -> Result<()> {
    let homes = tempfile::tempdir()?;
    let user = User::create(homes.path())?;
    let service = Service::new("hang", "auth required pam_exec.so quiet /bin/sleep 30\n")?;
    let registry = with(format!("[auth.pam]\nservice = {:?}\ntimeout = \"2s\"\n", service.0))?;
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| ask(&registry, &user.name, "x"));
        let begun = Instant::now();
        who(&registry, "ada", &password("ada"))?;
        ensure!(begun.elapsed() < Duration::from_secs(60), "ada waited for somebody else");
        hanging.join().expect("no panic")?.is(503)?;
        Ok(())
    })?;
    Ok(())
}

#[test]
fn failed_logins_are_slowed_and_say_when_to_try_again() -> Result<()> {
    let registry = with(String::new())?;
    let mut answers = Vec::new();
    for _ in 0..7 {
        answers.push(ask(&registry, "ada", "guess")?);
    }
    let slowed = answers.iter().find(|answer| answer.status == 429).context("nobody is slowed")?;
    ensure!(slowed.needs("Retry-After")?.parse::<u64>()? >= 1);
    ensure!(answers.first().is_some_and(|first| first.status == 401));
    ensure!(who(&registry, "bob", &password("bob"))?["name"] == "bob", "others are not");
    Ok(())
}

#[test]
fn passwords_and_tokens_are_in_no_log() -> Result<()> {
    let slapd = Slapd::start()?;
    let options = Options { lines: vec![slapd.config(&slapd.tls_url(), "")], ..Options::default() };
    let registry = Registry::process(StoreKind::File, options)?;
    who(&registry, "lena", "lena-secret")?;
    ask(&registry, "lena", "wrong-secret")?.is(401)?;
    ask(&registry, "typed-secret-as-name", "x")?.is(401)?;
    let get = Request::new("GET", "/token?account=lena").basic("lena", "lena-secret");
    let token = get.send(registry.one())?.json()?["token"].as_str().context("a token")?.to_owned();
    Request::new("GET", "/v2/")
        .header("Authorization", format!("Bearer {token}x"))
        .send(registry.one())?
        .is(401)?;
    let form = "grant_type=password&username=lena&password=form-secret";
    Request::new("POST", "/token").body(form).send(registry.one())?.is(401)?;
    let log = std::fs::read_to_string(registry.scratch().join("log"))?;
    ensure!(log.contains("lena"), "logins are logged:\n{log}");
    for secret in ["-secret", &token] {
        ensure!(!log.contains(secret), "`{secret}` is in the log:\n{log}");
    }
    Ok(())
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart() -> Result<()> {
    let dir = tempfile::tempdir()?;
    certificates(dir.path())?;
    let registry = with_tls(dir.path())?;
    let at = registry.one();
    let curl = |ca: &str| {
        let ca = dir.path().join(ca);
        let url = format!("https://{at}/v2/");
        let code = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"];
        process::run(Command::new("curl").args(code).arg(ca).arg(url))
    };
    ensure!(curl("ca.pem")?.out == "401", "{:?}", curl("ca.pem")?);
    std::fs::copy(dir.path().join("ca.pem"), dir.path().join("old-ca.pem"))?;
    ensure!(curl("old-ca.pem")?.code == 0);
    // Another authority and another certificate, in the same files.
    certificates(dir.path())?;
    let renewed = || (curl("ca.pem").is_ok_and(|said| said.out == "401")).then_some(());
    yadokari_tests::wait::until("the new certificate", Duration::from_secs(60), renewed)?;
    ensure!(curl("old-ca.pem")?.code != 0, "the old certificate is still shown");
    Ok(())
}

#[test]
fn podman_trusts_the_authority_in_its_folder_of_certificates_and_no_other() -> Result<()> {
    let dir = tempfile::tempdir()?;
    certificates(dir.path())?;
    let registry = with_tls(dir.path())?;
    let script = format!(
        "set -e; cd {home}; export REGISTRY_AUTH_FILE=$PWD/auth.json HOME=$PWD\n\
         mkdir root run certs tree; cp {dir}/ca.pem certs/ca.crt; echo hello > tree/hello\n\
         p() {{ podman --root $PWD/root --runroot $PWD/run --storage-driver vfs \"$@\"; }}\n\
         login() {{ echo {secret} | p login -u ada --password-stdin \"$@\" {at}; }}\n\
         if login 2> said; then exit 1; fi; grep -q certificate said\n\
         login --cert-dir certs\n\
         tar -C tree -cf tree.tar .; p import -q tree.tar localhost/app\n\
         p push -q --cert-dir certs localhost/app {at}/ada/app:1\n\
         p rmi -af > /dev/null; p pull -q --cert-dir certs {at}/ada/app:1\n\
         if p pull -q {at}/ada/app:1 2> said; then exit 1; fi; grep -q certificate said\n",
        home = registry.scratch().display(),
        dir = dir.path().display(),
        secret = password("ada"),
        at = registry.one(),
    );
    process::sh(&script).map(|_| ())
}

#[test]
fn a_program_works_with_a_token_below_its_scopes_until_it_is_removed() -> Result<()> {
    let registry = with(String::new())?;
    let ada = Client::new(registry.one(), "ada");
    ada.push_image("ada/app", "1", 1, 1)?;
    ada.push_image("ada/other", "1", 1, 2)?;
    let api = |method: &str, body: &str| {
        let request = Request::new(method, "/api/v1/tokens").basic("ada", &password("ada"));
        request.header("Content-Type", "application/json").body(body).send(registry.one())
    };
    let new = r#"{"name": "ci", "scopes": ["repository:ada/app:pull"]}"#;
    let made = api("POST", new)?.is(200)?.json()?;
    let secret = made["secret"].as_str().context("a secret")?.to_owned();
    api("POST", new)?.is(409)?;
    let get = |path: &str| Request::new("GET", path).basic("ada+ci", &secret).send(registry.two());
    get("/v2/ada/app/manifests/1")?.is(200)?;
    get("/v2/ada/other/manifests/1")?.is(401)?;
    let push = Request::new("POST", "/v2/ada/app/blobs/uploads/").basic("ada+ci", &secret);
    push.send(registry.one())?.is(401)?;
    get("/api/v1/tokens")?.is(403).context("a robot manages nothing")?;
    let listed = Request::new("GET", "/api/v1/tokens").basic("ada", &password("ada"));
    let listed = listed.send(registry.two())?.is(200)?.json()?;
    ensure!(listed[0]["login"] == "ada+ci" && listed[0].get("secret").is_none(), "{listed}");
    api("DELETE", r#"{"name": "ci"}"#)?.is(200)?;
    std::thread::sleep(Duration::from_millis(1600));
    get("/v2/ada/app/manifests/1")?.is(401)?;
    Ok(())
}

#[test]
fn podman_logs_in_by_token_and_is_refused_with_a_wrong_password() -> Result<()> {
    let registry = with(String::new())?;
    let script = format!(
        "cd {home}; export REGISTRY_AUTH_FILE=$PWD/auth.json HOME=$PWD\n\
         login() {{ echo \"$2\" | podman login --tls-verify=false -u \"$1\" --password-stdin {at}; }}\n\
         login ada {right}\n\
         ! login ada wrong\n\
         podman logout {at}\n",
        home = registry.scratch().display(),
        at = registry.one(),
        right = password("ada"),
    );
    process::sh(&script).map(|_| ())
}
