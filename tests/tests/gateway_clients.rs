//! Real clients: Podman, Buildah, Skopeo, umoci, crane, regctl and curl, as people use them.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use yadokari_tests::gateway::{Options, Registry, password};
use yadokari_tests::image::Client;
use yadokari_tests::on_every_store;
use yadokari_tests::process::{self, Said};
use yadokari_tests::stores::StoreKind;

on_every_store! {
    podman_logs_in_pushes_and_pulls => podman;
    podman_keeps_several_architectures_under_one_tag => podman_index;
    skopeo_and_umoci_copy_sync_and_delete => skopeo;
    an_image_of_forty_layers_goes_up_and_comes_down => forty_layers;
    crane_pushes_lists_and_copies => crane;
    regctl_attaches_artifacts_and_finds_them => regctl;
    regctl_goes_on_when_a_gateway_dies_under_its_push => regctl_resumes;
    curl_uploads_resumes_and_reads_ranges => curl;
    clients_behind_nginx_see_its_address_alone => nginx;
}

/// A shell whose clients have files of their own; `$R` and `$R2` are the two gateways.
struct Shell<'a> {
    registry: &'a Registry,
    /// Which gateway `$R2` is.
    second: usize,
}

/// Names that every script has.
const FUNCTIONS: &str = r#"
cd "$HOME"
mkdir -p root run layout
STORAGE="--root $HOME/root --runroot $HOME/run --storage-driver vfs"
podman() { command podman $STORAGE "$@"; }
buildah() { command buildah $STORAGE "$@"; }
login() { echo "$2" | command podman login --tls-verify=false -u "$1" --password-stdin "$3"; }
# layout NAME TAG COUNT: an OCI layout with COUNT layers, made by umoci.
layout() {
    rm -rf "$1"
    umoci init --layout "$1"
    umoci new --image "$1:$2"
    for n in $(seq "$3"); do
        mkdir -p layer
        head -c 20000 /dev/urandom > layer/file-$n
        tar -C layer -cf layer.tar file-$n
        umoci raw add-layer --image "$1:$2" layer.tar
        rm -rf layer layer.tar
    done
}
"#;

impl Shell<'_> {
    fn command(&self, script: &str) -> Command {
        let home = self.registry.scratch().join("home");
        let _made = std::fs::create_dir_all(&home);
        let mut command = Command::new("bash");
        command.args(["-euxo", "pipefail", "-c", &format!("{FUNCTIONS}{script}")]);
        command.env_clear();
        for (name, value) in [
            ("HOME", home.display().to_string()),
            ("XDG_RUNTIME_DIR", home.display().to_string()),
            ("REGISTRY_AUTH_FILE", home.join("auth.json").display().to_string()),
            ("DOCKER_CONFIG", home.display().to_string()),
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("R", self.registry.one().to_string()),
            ("R2", self.registry.at(self.second).to_string()),
            ("SECRET", password("ada")),
        ] {
            command.env(name, value);
        }
        command
    }

    fn ok(&self, script: &str) -> Result<String> {
        process::ok(&mut self.command(script)).with_context(|| self.registry.log_tail())
    }

    fn run(&self, script: &str) -> Result<Said> {
        process::run(&mut self.command(script))
    }
}

fn podman(kind: StoreKind) -> Result<()> {
    let registry = Registry::start(kind)?;
    let shell = Shell { registry: &registry, second: 1 };
    let wrong = shell.run("login ada wrong $R")?;
    ensure!(wrong.code != 0 && wrong.err.contains("invalid username/password"), "{wrong:?}");
    shell.ok("login ada $SECRET $R; login ada $SECRET $R2")?;
    let said =
        shell.ok("mkdir tree; head -c 300000 /dev/urandom > tree/data; echo hello > tree/hello
         tar -C tree -cf tree.tar .
         podman import -q tree.tar localhost/app
         podman push -q --tls-verify=false localhost/app $R/ada/app:1
         podman push -q --tls-verify=false --compression-format zstd localhost/app $R/ada/app:zstd
         podman push -q --tls-verify=false --format v2s2 localhost/app $R/ada/app:docker
         before=$(podman image inspect --format '{{.Id}}' localhost/app)
         podman rmi -af > /dev/null
         for tag in 1 zstd docker; do
             podman pull -q --tls-verify=false $R2/ada/app:$tag
             podman image mount $R2/ada/app:$tag > mounted
             cmp tree/data $(cat mounted)/data
             podman image umount -a > /dev/null
             podman rmi -af > /dev/null
         done
         podman pull -q --tls-verify=false $R2/ada/app:1
         test $before = $(podman image inspect --format '{{.Id}}' $R2/ada/app:1)
         podman search --tls-verify=false --list-tags $R/ada/app")?;
    for tag in ["1", "zstd", "docker"] {
        ensure!(said.contains(&format!("ada/app  {tag}")), "{said}");
    }
    // Somebody else's name, and a private image that looks as if it were not there.
    let other = shell.run("podman push -q --tls-verify=false $R2/ada/app:1 $R/bob/app:1")?;
    ensure!(other.code != 0 && other.err.contains("denied"), "{other:?}");
    let script =
        "rm auth.json; login bob bob-secret $R; podman pull -q --tls-verify=false $R/ada/app:1";
    let hidden = shell.run(script)?;
    ensure!(hidden.code != 0 && hidden.err.contains("manifest unknown"), "{hidden:?}");
    let nobody = shell.run("rm auth.json; podman pull -q --tls-verify=false $R/ada/app:1")?;
    ensure!(nobody.code != 0, "{nobody:?}");
    registry.is_consistent()
}

fn podman_index(kind: StoreKind) -> Result<()> {
    let registry = Registry::start(kind)?;
    let shell = Shell { registry: &registry, second: 1 };
    shell.ok("login ada $SECRET $R; login ada $SECRET $R2
         for arch in amd64 arm64; do
             c=$(buildah from --arch $arch scratch)
             echo $arch > arch; buildah copy -q $c arch /arch
             buildah config --arch $arch $c
             buildah commit -q --rm $c localhost/app-$arch
         done
         buildah manifest create localhost/both
         for arch in amd64 arm64; do
             buildah manifest add --arch $arch localhost/both \
                 containers-storage:[vfs@$HOME/root+$HOME/run]localhost/app-$arch
         done
         buildah manifest push --all --tls-verify=false localhost/both docker://$R/ada/both:1
         buildah manifest push --all --tls-verify=false --format v2s2 localhost/both \
             docker://$R/ada/both:docker
         podman rmi -af > /dev/null
         for tag in 1 docker; do for arch in amd64 arm64; do
             podman pull -q --tls-verify=false --arch $arch $R2/ada/both:$tag
             test $arch = $(podman image inspect --format '{{.Architecture}}' $R2/ada/both:$tag)
             podman rmi -af > /dev/null
         done; done")?;
    registry.is_consistent()
}

fn skopeo(kind: StoreKind) -> Result<()> {
    let registry = Registry::start(kind)?;
    let shell = Shell { registry: &registry, second: 1 };
    let said = shell.ok("login ada $SECRET $R; login ada $SECRET $R2
         layout in v1 3
         skopeo copy -q --dest-tls-verify=false oci:in:v1 docker://$R/ada/app:v1
         skopeo copy -q --dest-tls-verify=false --format v2s2 oci:in:v1 docker://$R/ada/app:docker
         skopeo copy -q --src-tls-verify=false --dest-tls-verify=false \
             docker://$R2/ada/app:v1 docker://$R2/ada/copy:v1
         skopeo inspect --tls-verify=false docker://$R2/ada/copy:v1 > inspected
         test \"$(skopeo inspect --raw oci:in:v1)\" = \
              \"$(skopeo inspect --tls-verify=false --raw docker://$R2/ada/copy:v1)\"
         skopeo copy -q --src-tls-verify=false docker://$R2/ada/copy:v1 oci:out:v1
         umoci unpack --rootless --image out:v1 bundle
         test $(ls bundle/rootfs | wc -l) = 3
         skopeo sync --src-tls-verify=false --src docker --dest dir $R2/ada/app synced
         skopeo sync --dest-tls-verify=false --src dir --dest docker synced $R/ada/again
         skopeo list-tags --tls-verify=false docker://$R/ada/app
         skopeo delete --tls-verify=false docker://$R/ada/app:docker
         sleep 1
         ! skopeo inspect --tls-verify=false docker://$R2/ada/app:docker
         skopeo inspect --tls-verify=false docker://$R2/ada/app:v1 > /dev/null")?;
    ensure!(said.contains("\"docker\"") && said.contains("\"v1\""), "{said}");
    registry.is_consistent()
}

fn forty_layers(kind: StoreKind) -> Result<()> {
    let registry = Registry::start(kind)?;
    let shell = Shell { registry: &registry, second: 1 };
    shell.ok("login ada $SECRET $R; login ada $SECRET $R2
         layout in v1 40
         skopeo copy -q --preserve-digests --dest-tls-verify=false \
             oci:in:v1 docker://$R/ada/app:v1
         skopeo copy -q --preserve-digests --src-tls-verify=false \
             docker://$R2/ada/app:v1 oci:out:v1
         for blob in out/blobs/sha256/*; do cmp $blob in/blobs/sha256/$(basename $blob); done")?;
    let image = Client::new(registry.two(), "ada").get("ada/app/manifests/v1")?.is(200)?.json()?;
    ensure!(image["layers"].as_array().map(Vec::len) == Some(40));
    registry.is_consistent()
}

fn crane(kind: StoreKind) -> Result<()> {
    let registry = Registry::start(kind)?;
    let shell = Shell { registry: &registry, second: 1 };
    let said = shell.ok("for r in $R $R2; do crane auth login $r -u ada -p $SECRET; done
         layout in v1 2
         crane push in $R/ada/app:v1
         crane digest $R2/ada/app:v1
         crane pull --format oci $R2/ada/app:v1 out
         crane tag $R/ada/app:v1 second
         crane copy $R2/ada/app:v1 $R/ada/copy:v1
         sleep 1 # what one gateway knows of the other's changes is at most a second old
         crane ls $R2/ada/app
         crane catalog $R2
         crane validate --remote $R2/ada/copy:v1
         crane append -b $R2/ada/app:v1 -t $R/ada/app:more -f <(tar -c -C / etc/hostname)
         crane delete $R/ada/copy:v1")?;
    for expected in ["second", "ada/app", "ada/copy"] {
        ensure!(said.lines().any(|line| line == expected), "{expected}: {said}");
    }
    registry.is_consistent()
}

fn regctl(kind: StoreKind) -> Result<()> {
    let registry = Registry::start(kind)?;
    let shell = Shell { registry: &registry, second: 1 };
    let said = shell.ok("for r in $R $R2; do
             regctl registry set --tls disabled --blob-chunk 100000 --blob-max 200000 $r
             echo $SECRET | regctl registry login -u ada --pass-stdin $r
         done
         layout in v1 2
         regctl image copy ocidir://in:v1 $R/ada/app:v1
         head -c 1000000 /dev/urandom > large
         regctl blob put $R/ada/app < large > digest
         regctl blob get $R2/ada/app $(cat digest) | cmp - large
         echo sbom | regctl artifact put --artifact-type a/sbom --subject $R/ada/app:v1
         echo signed | regctl artifact put --artifact-type a/signature --subject $R/ada/app:v1
         sleep 1
         regctl artifact list --filter-artifact-type a/sbom --format '{{len .Descriptors}}' \
             $R2/ada/app:v1; echo
         regctl artifact list --format '{{len .Descriptors}}' $R2/ada/app:v1; echo
         regctl artifact get --subject $R2/ada/app:v1 --filter-artifact-type a/sbom
         regctl image copy --referrers $R2/ada/app:v1 $R/ada/copy:v1
         sleep 1
         regctl artifact list --format '{{len .Descriptors}}' $R/ada/copy:v1; echo
         regctl tag ls $R2/ada/app
         regctl tag rm $R/ada/copy:v1
         regctl repo ls $R2")?;
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines.iter().filter(|line| **line == "2").count() == 2, "{said}");
    ensure!(lines.contains(&"1") && lines.contains(&"sbom"), "{said}");
    registry.is_consistent()
}

fn regctl_resumes(kind: StoreKind) -> Result<()> {
    // The gateway that comes back is where the client knows it.
    let listen = Some(free_port()?);
    let mut registry = Registry::process(kind, Options { listen, ..Options::default() })?;
    let prepare = Shell { registry: &registry, second: 0 };
    prepare.ok("regctl registry set --tls disabled --blob-chunk 100000 --blob-max 200000 \\
             --req-per-sec 20 $R
         echo $SECRET | regctl registry login -u ada --pass-stdin $R
         head -c 6000000 /dev/urandom > large")?;
    let mut push = prepare.command("regctl blob put $R/ada/app < large > digest");
    let mut push = push.stderr(std::process::Stdio::null()).spawn()?;
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let early = push.try_wait()?;
    registry.kill(0);
    registry.restart(0)?;
    let ended = push.wait()?;
    ensure!(early.is_none(), "the push was over before the gateway died");
    ensure!(ended.success(), "regctl gave up: {}", registry.log_tail());
    let shell = Shell { registry: &registry, second: 0 };
    shell.ok("test $(cat digest) = sha256:$(sha256sum < large | cut -d' ' -f1)
         regctl blob get $R/ada/app $(cat digest) | cmp - large")?;
    registry.is_consistent()
}

fn curl(kind: StoreKind) -> Result<()> {
    let registry = Registry::start_with(kind, Options::default())?;
    let shell = Shell { registry: &registry, second: 1 };
    shell.ok(r#"
        fetch() { command curl -sS --max-time 300 -u ada:$SECRET "$@"; }
        head -c 5000000 /dev/urandom > blob
        digest=sha256:$(sha256sum < blob | cut -d' ' -f1)
        place=$(fetch -D - -o /dev/null -X POST http://$R/v2/ada/app/blobs/uploads/ \
            | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
        # The connection breaks in the middle: what arrived is kept.
        fetch --max-time 2 --limit-rate 800k -X PATCH -T blob http://$R$place && exit 1
        sleep 1
        at=$(fetch -D - -o /dev/null http://$R2$place | tr -d '\r' | sed -n 's/^[Rr]ange: 0-//p')
        test $at -gt 0 && test $at -lt 5000000
        tail -c +$((at + 2)) blob > rest
        fetch -f -X PATCH -H "Content-Range: $((at + 1))-4999999" -T rest http://$R2$place
        fetch -f -X PUT "http://$R$place?digest=$digest" -d ''
        fetch -f http://$R2/v2/ada/app/blobs/$digest | cmp - blob
        # A download resumed.
        head -c 1000000 blob > part
        fetch -f -C - -o part http://$R/v2/ada/app/blobs/$digest
        cmp part blob
        # With Expect: 100-continue.
        fetch -f -H 'Expect: 100-continue' -X POST --data-binary @blob \
            "http://$R/v2/ada/other/blobs/uploads/?digest=$digest"
        fetch -f -I http://$R2/v2/ada/other/blobs/$digest
        "#)?;
    registry.is_consistent()
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn nginx(kind: StoreKind) -> Result<()> {
    let port = free_port()?;
    let external_url = Some(format!("http://127.0.0.1:{port}"));
    let registry = Registry::start_with(kind, Options { external_url, ..Options::default() })?;
    let dir = registry.scratch().join("nginx");
    std::fs::create_dir(&dir)?;
    let (dir, to) = (dir.display(), registry.one());
    let conf = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log; worker_processes 1; user root;
         events {{}}
         http {{
             access_log {dir}/access.log;
             client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
             fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
             server {{
                 listen 127.0.0.1:{port};
                 client_max_body_size 0;
                 proxy_request_buffering off; proxy_buffering off; proxy_http_version 1.1;
                 proxy_set_header Host $http_host;
                 proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                 location / {{ proxy_pass http://{to}; }}
             }}
         }}"
    );
    let file = format!("{dir}/nginx.conf");
    std::fs::write(&file, conf)?;
    let mut proxy = Command::new("nginx");
    let mut proxy = proxy.args(["-c", &file, "-e", &format!("{dir}/error.log")]).spawn()?;
    let shell = Shell { registry: &registry, second: 0 };
    let done = shell.ok(&format!(
        "P=127.0.0.1:{port}
         for n in $(seq 100); do curl -s http://$P/healthz && break; sleep 0.1; done
         login ada $SECRET $P
         layout in v1 3
         skopeo copy -q --preserve-digests --dest-tls-verify=false \
             oci:in:v1 docker://$P/ada/app:v1
         skopeo copy -q --preserve-digests --src-tls-verify=false \
             docker://$P/ada/app:v1 oci:out:v1
         for blob in out/blobs/sha256/*; do cmp $blob in/blobs/sha256/$(basename $blob); done
         crane auth login $P -u ada -p $SECRET
         crane validate --remote $P/ada/app:v1
         curl -sS -D - -o /dev/null -u ada:$SECRET -X POST http://$P/v2/ada/app/blobs/uploads/ \
             | grep -i \"^location: http://$P/v2/ada/app/blobs/uploads/\""
    ));
    let _gone = proxy.kill();
    let _gone = proxy.wait();
    done?;
    registry.is_consistent()
}

#[test]
fn a_layer_of_two_gigabytes_takes_little_memory() -> Result<()> {
    // Unoptimised code of ours and one process that also serves the download.
    const RESIDENT_KB_MAX: u64 = 256 << 10;
    let registry = Registry::process(StoreKind::File, Options::default())?;
    let shell = Shell { registry: &registry, second: 0 };
    shell.ok(
        r#"
        fetch() { command curl -fsS --max-time 500 -u ada:$SECRET "$@"; }
        head -c 1000000 /dev/urandom > layer; truncate -s 2G layer
        digest=sha256:$(sha256sum < layer | cut -d' ' -f1)
        place=$(fetch -D - -o /dev/null -X POST http://$R/v2/ada/app/blobs/uploads/             | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
        fetch -X PATCH -T layer http://$R$place
        fetch -X PUT "http://$R$place?digest=$digest" -d ''
        test $digest = sha256:$(fetch http://$R/v2/ada/app/blobs/$digest | sha256sum | cut -d' ' -f1)
        "#,
    )?;
    let pid = registry.pid(0).context("a process")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kb: u64 = high.trim().trim_end_matches(" kB").parse()?;
    ensure!(kb < RESIDENT_KB_MAX, "{kb} kB were resident");
    Ok(())
}
