//! Local callers: on the loopback listener of `yadokari up` the kernel says who calls, and every
//! doubt makes the caller anonymous.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use yadokari_tests::http::Request;
use yadokari_tests::instance::{Instance, Options};
use yadokari_tests::process;
use yadokari_tests::slapd::free_port;
use yadokari_tests::stores::StoreKind;
use yadokari_tests::user::User;
use yadokari_tests::wait;

/// An instance whose registry listens somewhere, and where.
fn start() -> Result<(Instance, SocketAddr)> {
    let arguments = vec!["--listen".to_owned(), "127.0.0.1:0".to_owned()];
    let instance =
        Instance::start_with(StoreKind::File, Options { arguments, ..Options::default() })?;
    let note = std::fs::read_to_string(instance.data().join("run/registry"));
    let at = note.context("up notes where its registry is")?.trim().parse()?;
    Ok((instance, at))
}

/// Whom the registry takes a user's curl for; `None` is nobody in particular.
fn who(command: Command, at: SocketAddr, more: &[&str]) -> Result<Option<String>> {
    let mut command = command;
    command.args(["-s", "-w", "\n%{http_code}"]).args(more);
    command.arg(format!("http://{at}/api/v1/whoami"));
    let said = process::ok(&mut command)?;
    let (body, code) = said.rsplit_once('\n').context("a code")?;
    match code {
        "200" => {
            Ok(serde_json::from_str::<serde_json::Value>(body)?["name"].as_str().map(Into::into))
        }
        "401" => Ok(None),
        other => anyhow::bail!("{other}: {body}"),
    }
}

fn as_uid(uid: u32) -> Command {
    let mut command = Command::new("setpriv");
    let uid = uid.to_string();
    command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "curl"]);
    command
}

#[test]
fn a_plain_user_is_that_user_and_pushes_without_login() -> Result<()> {
    let (instance, at) = start()?;
    let (ada, bob) = (instance.user()?, instance.user()?);
    for user in [&ada, &bob] {
        ensure!(who(user.command("curl"), at, &[])?.as_deref() == Some(user.name.as_str()));
    }
    // The entry that `up` wrote lets skopeo speak plain HTTP without being told.
    let name = &ada.name;
    let script = format!(
        "umoci init --layout l && umoci new --image l:1 && mkdir d && echo hi > d/f && \
         tar -C d -cf d.tar f && umoci raw add-layer --image l:1 d.tar && \
         skopeo copy --insecure-policy oci:l:1 docker://{at}/{name}/app:1 && \
         skopeo copy --insecure-policy docker://{at}/{name}/app:1 oci:back:1 && \
         skopeo list-tags docker://{at}/{name}/app"
    );
    let listed = ada.sh(&script)?;
    ensure!(listed.contains("\"1\""), "{listed}");
    let foreign = format!("skopeo copy --insecure-policy docker://{at}/{name}/app:1 oci:stolen:1");
    ensure!(bob.try_sh(&foreign)?.code != 0, "bob has read what is private");
    let foreign = format!(
        "umoci init --layout l && umoci new --image l:1 && \
         skopeo copy --insecure-policy oci:l:1 docker://{at}/{name}/app:2"
    );
    ensure!(bob.try_sh(&foreign)?.code != 0, "bob has pushed to somebody else");
    Ok(())
}

#[test]
fn root_owns_root_and_nothing_more() -> Result<()> {
    let (instance, at) = start()?;
    let ada = instance.user()?;
    // curl is a plain client; this test itself would be one too, but for its listening threads.
    ensure!(who(Command::new("curl"), at, &[])?.as_deref() == Some("root"));
    let start = |repo: &str| {
        let url = format!("http://{at}/v2/{repo}/blobs/uploads/");
        let code = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST"];
        process::ok(Command::new("curl").args(code).arg(url))
    };
    ensure!(start("root/app")? == "202");
    ensure!(start(&format!("{}/app", ada.name))? == "403");
    let quota = format!("http://{at}/api/v1/owners");
    let said = process::ok(Command::new("curl").args(["-s", &quota]))?;
    ensure!(said.contains("administrators"), "{said}");
    Ok(())
}

#[test]
fn system_subordinate_and_unnamed_ids_are_anonymous() -> Result<()> {
    let (instance, at) = start()?;
    let ada = instance.user()?;
    let subordinate = std::fs::read_to_string("/etc/subuid")?;
    let line = subordinate.lines().find(|line| line.starts_with(&format!("{}:", ada.name)));
    let first: u32 = line.and_then(|l| l.split(':').nth(1)).context("a range")?.parse()?;
    let www: u32 = process::sh("id -u www-data")?.trim().parse()?;
    for uid in [1, www, 59_998, 65_534, first, first + 1000] {
        let found = who(as_uid(uid), at, &[])?;
        ensure!(found.is_none(), "uid {uid} is {found:?}");
    }
    Ok(())
}

#[test]
fn signs_of_proxies_and_browsers_and_a_foreign_host_make_anonymous() -> Result<()> {
    let (instance, at) = start()?;
    let ada = instance.user()?;
    for header in [
        "Origin: http://evil.example",
        "Sec-Fetch-Site: cross-site",
        "X-Forwarded-For: 10.0.0.1",
        "Forwarded: for=10.0.0.1",
        "X-Real-IP: 10.0.0.1",
        "Via: 1.1 proxy",
        "Host: evil.example",
        "Host: 127.0.0.1:1",
        "Cookie: a=b",
    ] {
        let found = who(ada.command("curl"), at, &["-H", header])?;
        ensure!(found.is_none(), "with `{header}` ada is {found:?}");
    }
    ensure!(who(ada.command("curl"), at, &["--http1.0"])?.is_none(), "HTTP/1.0");
    let host = format!("Host: localhost:{}", at.port());
    ensure!(who(ada.command("curl"), at, &["-H", &host])?.is_some(), "localhost is us");
    Ok(())
}

#[test]
fn authorization_that_is_sent_wins_and_wrong_is_401() -> Result<()> {
    let (instance, at) = start()?;
    let ada = instance.user()?;
    ensure!(who(ada.command("curl"), at, &["-u", "ada:wrong"])?.is_none());
    ensure!(who(ada.command("curl"), at, &["-H", "Authorization: Bearer x"])?.is_none());
    // As with any registry: a challenge, then a token, which is the user's.
    let script = format!(
        "curl -si http://{at}/v2/ | tr -d '\\r' | grep -i '^www-authenticate: Bearer realm=\"http://{at}/token\"' >&2\n\
         curl -s 'http://{at}/token?scope=repository:{name}/app:push,pull&service=x'",
        name = ada.name,
    );
    let token: serde_json::Value = serde_json::from_str(&ada.sh(&script)?)?;
    let bearer = format!("Bearer {}", token["token"].as_str().context("a token")?);
    let path = format!("/v2/{}/app/blobs/uploads/", ada.name);
    let push = |bearer: &str| {
        let request = Request::new("POST", path.clone());
        request.header("Authorization", bearer).send(at)
    };
    push(&bearer)?.is(202)?;
    push(&format!("{bearer}x"))?.is(401)?;
    Ok(())
}

/// Pushes a blob to `root/` in one request and goes away in some way before it is answered.
const RUDE: &str = r#"
import hashlib, socket, struct, sys
host, port, how, rounds = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
for n in range(rounds):
    body = f"{how} {n}".encode()
    digest = hashlib.sha256(body).hexdigest()
    s = socket.create_connection((host, port))
    head = (f"POST /v2/root/app/blobs/uploads/?digest=sha256:{digest} HTTP/1.1\r\n"
            f"Host: {host}:{port}\r\nContent-Length: {len(body)}\r\n"
            "Content-Type: application/octet-stream\r\n\r\n").encode()
    s.sendall(head + body)
    if how == "half":
        s.shutdown(socket.SHUT_WR)
        s.settimeout(20)
        while s.recv(65536): pass
    elif how == "reset":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
"#;

#[test]
fn a_client_that_closes_half_closes_or_resets_is_never_root() -> Result<()> {
    let (instance, at) = start()?;
    let ada = instance.user()?;
    for how in ["close", "half", "reset"] {
        let mut rude = ada.command("python3");
        rude.args(["-c", RUDE, "127.0.0.1", &at.port().to_string(), how, "150"]);
        process::ok(&mut rude)?;
    }
    // Whatever was still under way has ended when the registry has answered a few more.
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(200));
        ensure!(who(ada.command("curl"), at, &[])?.as_deref() == Some(ada.name.as_str()));
    }
    let usage = format!("http://{at}/api/v1/usage?owner=root");
    let said = process::ok(Command::new("curl").args(["-sf", &usage]))?;
    let usage: serde_json::Value = serde_json::from_str(&said)?;
    ensure!(usage["used"] == 0 && usage["blobs"] == 0, "something was pushed as root: {usage}");
    Ok(())
}

/// A program that is ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        process::kill_group(&self.0);
        let _ = self.0.wait();
    }
}

fn serve(mut command: Command, port: u16) -> Result<Server> {
    use std::os::unix::process::CommandExt;
    let child = command.process_group(0).stdin(Stdio::null()).spawn().context("a proxy")?;
    let server = Server(child);
    wait::until("the proxy", Duration::from_secs(30), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
    })?;
    Ok(server)
}

#[test]
fn a_proxy_run_by_root_or_www_data_passes_nobody_off_as_itself() -> Result<()> {
    let (instance, at) = start()?;
    let ada = instance.user()?;
    for user in ["root", "www-data"] {
        // The worst there is: no header of its own, and the registry's own name as Host.
        for version in ["1.0", "1.1"] {
            let port = free_port()?;
            let dir = instance.beside().join(format!("nginx-{user}-{version}"));
            std::fs::create_dir(&dir)?;
            let show = dir.display();
            let config = format!(
                "user {user}; daemon off; pid {show}/pid; error_log {show}/log;\nevents {{}}\n\
                 http {{ access_log off; client_body_temp_path {show}/a; proxy_temp_path {show}/b;\n\
                 fastcgi_temp_path {show}/c; uwsgi_temp_path {show}/d; scgi_temp_path {show}/e;\n\
                 server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{at};\n\
                 proxy_http_version {version}; proxy_set_header Connection \"\"; }} }} }}\n"
            );
            std::fs::write(dir.join("conf"), config)?;
            let mut nginx = Command::new("nginx");
            nginx.arg("-c").arg(dir.join("conf"));
            let _proxy = serve(nginx, port)?;
            let through: SocketAddr = ([127, 0, 0, 1], port).into();
            let found = who(ada.command("curl"), through, &[])?;
            ensure!(found.is_none(), "nginx of {user}, HTTP/{version}, makes ada {found:?}");
        }
    }
    Ok(())
}

/// Passes bytes on, a thread per direction.
const FORWARD: &str = r#"
import socket, sys, threading
listen, to = int(sys.argv[1]), int(sys.argv[2])
server = socket.create_server(("127.0.0.1", listen))
def pump(a, b):
    try:
        while data := a.recv(65536): b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError: pass
while True:
    near, _ = server.accept()
    far = socket.create_connection(("127.0.0.1", to))
    for a, b in ((near, far), (far, near)):
        threading.Thread(target=pump, args=(a, b), daemon=True).start()
"#;

#[test]
fn a_port_that_root_forwards_is_not_root() -> Result<()> {
    let (instance, at) = start()?;
    let ada = instance.user()?;
    let port = free_port()?;
    let mut forward = Command::new("python3");
    forward.args(["-c", FORWARD, &port.to_string(), &at.port().to_string()]);
    let _forward = serve(forward, port)?;
    // Even when the client knows the registry's own name.
    let host = format!("Host: {at}");
    let found = who(ada.command("curl"), ([127, 0, 0, 1], port).into(), &["-H", &host])?;
    ensure!(found.is_none(), "through root's forwarding ada is {found:?}");
    Ok(())
}

#[test]
fn image_commands_work_without_login() -> Result<()> {
    let (instance, at) = start()?;
    let (ada, bob) = (instance.user()?, instance.user()?);
    let name = &ada.name;
    let yadokari = |user: &User, line: &str| {
        let binary = yadokari_tests::instance::binary();
        user.try_sh(&format!("YADOKARI_REGISTRY={at} {} image {line}", binary.display()))
    };
    let ok = |user: &User, line: &str| -> Result<String> {
        let said = yadokari(user, line)?;
        ensure!(said.code == 0, "{line}: {} {}{}", said.code, said.out, said.err);
        Ok(said.out)
    };
    ada.sh(&format!(
        "umoci init --layout l && umoci new --image l:1 && \
         skopeo copy --insecure-policy oci:l:1 docker://{at}/{name}/app:1"
    ))?;
    ensure!(ok(&ada, "whoami")?.contains("kernel"));
    ensure!(ok(&ada, "ls")?.contains(&format!("{name}/app")));
    ensure!(!ok(&bob, "ls")?.contains(&format!("{name}/app")), "it is private");
    ensure!(yadokari(&bob, &format!("show {name}/app:1"))?.code == 3);
    ok(&ada, &format!("share {name}/app --read {}", bob.name))?;
    std::thread::sleep(Duration::from_millis(1200));
    ensure!(ok(&bob, &format!("show {name}/app:1"))?.contains("sha256:"));
    ensure!(yadokari(&bob, &format!("rm {name}/app:1"))?.code == 4);
    let tags: serde_json::Value =
        serde_json::from_str(&ok(&ada, &format!("tags {name}/app --json"))?)?;
    ensure!(tags[0]["tag"] == "1" && tags[0]["bytes"].as_u64() > Some(0), "{tags}");
    let du: serde_json::Value = serde_json::from_str(&ok(&ada, "du --json")?)?;
    ensure!(du["used"].as_u64() > Some(0) && du["owner"] == name.as_str(), "{du}");
    ensure!(yadokari(&ada, &format!("quota {name} 1G"))?.code == 4, "only administrators");
    let made: serde_json::Value = serde_json::from_str(&ok(
        &ada,
        &format!("token create ci --scope 'repository:{name}/*:pull' --json"),
    )?)?;
    let login = format!("{name}+ci:{}", made["secret"].as_str().context("a secret")?);
    let pull = format!("http://{at}/v2/{name}/app/manifests/1");
    bob.sh(&format!("curl -sf -u '{login}' {pull}"))?;
    ensure!(ok(&ada, "token ls")?.contains("ci"));
    ok(&ada, "token rm ci")?;
    ok(&ada, &format!("rm {name}/app:1"))?;
    ensure!(ok(&ada, "ls --untagged")?.contains("sha256:"));
    ok(&ada, &format!("rm --repository {name}/app"))?;
    ensure!(yadokari(&ada, &format!("show {name}/app"))?.code == 3);
    ensure!(yadokari(&ada, "rm app")?.code == 2);
    Ok(())
}

#[test]
fn up_tells_podman_of_its_registry_for_as_long_as_it_runs() -> Result<()> {
    let (mut instance, at) = start()?;
    let file =
        format!("/etc/containers/registries.conf.d/yadokari-up-127.0.0.1-{}.conf", at.port());
    let text = std::fs::read_to_string(&file).context("the entry")?;
    ensure!(text.contains(&format!("location = \"{at}\"")) && text.contains("insecure = true"));
    instance.stop()?;
    ensure!(!std::path::Path::new(&file).exists(), "{file} is still there");
    Ok(())
}
