//! The scene that all of this is for: a Debian base image, built on and pushed by one user with
//! rootless Podman whose storage lies in their home here; shared, pulled and run by another;
//! refused for a third. Nobody logs in anywhere.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use yadokari_tests::instance::{Instance, Options};
use yadokari_tests::on_every_store;
use yadokari_tests::podman::Podman;
use yadokari_tests::stores::StoreKind;
use yadokari_tests::user::User;

const CONTAINERFILE: &str = r#"
FROM localhost/base
RUN mkdir /app && i=0 && while [ $i -lt 500 ]; do i=$((i + 1)); echo "$i" > "/app/f$i"; done
RUN printf '#!/bin/sh\ncat /app/f500; . /etc/os-release; echo $ID; id -u\n' > /app/run \
    && chmod 755 /app/run && chown -R 33:33 /app/f1 && rm /app/f2
CMD ["/app/run"]
"#;

on_every_store! {
    an_image_is_built_pushed_shared_pulled_and_run_and_refused_to_others => scene;
}

fn scene(store: StoreKind) -> Result<()> {
    let arguments = vec!["--listen".to_owned(), "127.0.0.1:0".to_owned()];
    let instance = Instance::start_with(store, Options { arguments, ..Options::default() })?;
    let note = std::fs::read_to_string(instance.data().join("run/registry"));
    let at: SocketAddr = note.context("up notes where its registry is")?.trim().parse()?;
    let (ada, bob, carol) = (instance.user()?, instance.user()?, instance.user()?);
    let image = format!("{at}/{}/app:1", ada.name);
    // Where `image share` and `ls` are asked, without a word about the registry.
    let program = instance.users_program()?;
    let yadokari = |user: &User, line: &str| {
        user.sh(&format!("YADOKARI_REGISTRY={at} {} image {line}", program.display()))
    };

    let podman = Podman::set_up(&instance, &ada)?;
    podman.import_base()?;
    podman
        .sh(&format!("mkdir context; cat > context/Containerfile <<'END'\n{CONTAINERFILE}END"))?;
    podman.sh(&format!("build -q --layers -t {image} context"))?;
    let root = podman.sh("podman info -f '{{.Store.GraphRoot}}'")?;
    ensure!(std::path::Path::new(root.trim()).starts_with(&ada.home), "images lie in {root}");
    podman.sh(&format!("podman push -q {image}"))?;
    // Again, and under another tag: everything is there, nothing is sent.
    podman.sh(&format!("podman push -q {image} {at}/{}/app:latest", ada.name))?;
    let listed = yadokari(&ada, &format!("tags {}/app", ada.name))?;
    ensure!(listed.contains("latest"), "{listed}");

    let bobs = Podman::set_up(&instance, &bob)?;
    let early = bobs.try_sh(&format!("podman pull -q {image}"))?;
    ensure!(early.code != 0, "bob pulled what nobody shared with them");
    yadokari(&ada, &format!("share {}/app --read {}", ada.name, bob.name))?;
    // What one gateway knows of rights is at most a second old.
    std::thread::sleep(Duration::from_millis(1200));
    bobs.sh(&format!("podman pull -q {image}"))?;
    let said = bobs.sh(&format!("podman run --rm --network=none {image}"))?;
    ensure!(said.split_whitespace().eq(["500", "debian", "0"]), "the container said {said}");
    let seen = "test ! -e /app/f2 && stat -c '%u %g' /app/f1";
    let seen = bobs.sh(&format!("podman run --rm --network=none {image} sh -c \"{seen}\""))?;
    ensure!(seen.trim() == "33 33", "the container's file belongs to {seen}");
    let same = |podman: &Podman<'_>| {
        podman.sh(&format!("podman image inspect {image} -f '{{{{.Id}}}} {{{{.RootFS.Layers}}}}'"))
    };
    ensure!(same(&podman)? == same(&bobs)?, "bob has another image than ada pushed");
    let push = bobs.try_sh(&format!("podman push -q {image} {at}/{}/app:mine", ada.name))?;
    ensure!(push.code != 0, "bob pushed to what they may only read");

    let carols = Podman::set_up(&instance, &carol)?;
    let refused = carols.try_sh(&format!("podman pull -q {image}"))?;
    ensure!(refused.code != 0, "carol pulled what is not shared with them");
    let text = format!("{}{}", refused.out, refused.err);
    let absent = format!("{at}/{}/absent:1", ada.name);
    let absent = carols.try_sh(&format!("podman pull -q {absent}"))?;
    let same = |text: &str| text.replace("/absent:1", "/app:1").replace("/absent", "/app");
    let shown = same(&format!("{}{}", absent.out, absent.err));
    ensure!(
        last_line(&text) == last_line(&shown),
        "what is hidden differs from what is not there:\n{text}\n{shown}"
    );
    drop((podman, bobs, carols));
    instance.fsck_is_clean()
}

fn last_line(text: &str) -> &str {
    text.trim().lines().last().unwrap_or_default()
}
