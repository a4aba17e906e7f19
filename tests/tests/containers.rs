//! Rootless containers of a plain user whose home is on the mount.

use anyhow::{Result, ensure};
use yadokari_tests::instance::{Instance, is_plain};
use yadokari_tests::stores::StoreKind;
use yadokari_tests::user::User;
use yadokari_tests::{on_every_store, podman};

/// Six steps: thousands of files, a copy of a tree, deletes across layers, a big file, modes.
const DOCKERFILE: &str = r#"FROM base
RUN mkdir /many && cd /many && i=0 && while [ $i -lt 3000 ]; do echo "file $i" > f$i; i=$((i+1)); done
RUN cp -a /usr/share /copy
RUN rm -rf /copy/doc /usr/share/doc && rm /many/f1??
RUN dd if=/dev/urandom of=/big bs=1M count=50 2>/dev/null && sha256sum /big > /big.sum
RUN chmod -R go-rwx /copy && mv /many /moved
RUN ln /big /big.link && mkfifo /fifo && setpriv --version > /dev/null
"#;

on_every_store! {
    podman_uses_native_overlay_and_runs_builds_saves_and_loads => whole_life;
    keep_id_two_builds_at_once_buildah_and_skopeo_work => side_by_side;
}

fn ready(store: StoreKind) -> Result<(Instance, User)> {
    let instance = Instance::start(store)?;
    let user = instance.user()?;
    podman::set_up(&instance, &user)?;
    Ok((instance, user))
}

fn whole_life(store: StoreKind) -> Result<()> {
    let (instance, user) = ready(store)?;
    let info: serde_json::Value = serde_json::from_str(&user.sh("podman info --format json")?)?;
    let store = &info["store"];
    ensure!(store["graphDriverName"] == "overlay", "driver: {store}");
    ensure!(store["graphStatus"]["Native Overlay Diff"] == "true", "not native: {store}");
    user.sh(&format!(
        "mkdir context; cat > context/Dockerfile <<'EOF'\n{DOCKERFILE}EOF\n\
         podman build --quiet --isolation=chroot --layers -t built context"
    ))?;
    // What the steps left, seen from a container.
    let seen =
        user.sh("podman run --rm --network=none built sh -c 'sha256sum -c --quiet /big.sum && \
         ls /moved | wc -l && ls -d /copy/doc /usr/share/doc 2>/dev/null | wc -l; \
         stat -c %h /big; test -p /fifo && echo fifo'")?;
    ensure!(seen.split_whitespace().eq(["2900", "0", "2", "fifo"]), "in the container: {seen}");
    user.sh("podman run -d --name box --network=none built sleep 600 >/dev/null\n\
         podman exec box sh -c 'echo made > /made; rm /big.sum'\n\
         podman commit --quiet box committed >/dev/null\n\
         podman rm -f -t 0 box >/dev/null\n\
         test \"$(podman run --rm --network=none committed cat /made)\" = made\n\
         podman run --rm --network=none committed sh -c '! test -e /big.sum'")?;
    user.sh("podman save --quiet -o saved.tar committed\n\
         podman rmi --force committed >/dev/null\n\
         podman load --quiet -i saved.tar >/dev/null\n\
         test \"$(podman run --rm --network=none committed cat /made)\" = made\n\
         rm saved.tar")?;
    user.sh("podman system reset --force && ! ls -A ~/.local/share/containers/storage/overlay 2>/dev/null | grep -q .")?;
    user.end_processes();
    if !is_plain() {
        instance.fsck_is_clean()?;
    }
    Ok(())
}

fn side_by_side(store: StoreKind) -> Result<()> {
    let (instance, user) = ready(store)?;
    let owner = user.sh(
        "mkdir shared; podman run --rm --network=none --userns=keep-id -v ./shared:/shared base \
         sh -c 'id -u; echo x > /shared/file'; stat -c %u shared/file",
    )?;
    let uid = user.uid.to_string();
    ensure!(owner.split_whitespace().all(|id| id == uid), "keep-id: {owner}, not {uid}");
    user.sh(
        "for n in 1 2; do mkdir context$n; printf 'FROM base\\nRUN for i in $(seq 500); do echo '$n' > /f$i; done\\nRUN rm /f1*\\n' > context$n/Dockerfile; done\n\
         podman build --quiet --isolation=chroot -t one context1 & first=$!\n\
         podman build --quiet --isolation=chroot -t two context2\n\
         wait $first\n\
         test \"$(podman run --rm --network=none one cat /f200)\" = 1\n\
         test \"$(podman run --rm --network=none two cat /f200)\" = 2",
    )?;
    user.sh("box=$(buildah from base)\n\
         buildah run --isolation=chroot $box sh -c 'echo built > /by-buildah'\n\
         buildah commit --quiet $box by-buildah >/dev/null\n\
         buildah rm $box >/dev/null\n\
         test \"$(podman run --rm --network=none by-buildah cat /by-buildah)\" = built")?;
    user.sh("skopeo copy --quiet containers-storage:localhost/by-buildah:latest oci:layout:x\n\
         podman rmi --force by-buildah >/dev/null\n\
         skopeo copy --quiet oci:layout:x containers-storage:localhost/back:latest\n\
         test \"$(podman run --rm --network=none back cat /by-buildah)\" = built")?;
    user.end_processes();
    instance.fsck_is_clean()
}
