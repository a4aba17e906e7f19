//! The command line as scripts and people meet it: exit codes, `--json`, errors with remedies.

use std::process::Command;

use anyhow::{Result, ensure};
use yadokari_tests::instance::{self, Instance};
use yadokari_tests::process::{self, Said};
use yadokari_tests::stores::StoreKind;

fn call(arguments: &[&str]) -> Result<Said> {
    let mut command = Command::new(instance::binary());
    command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", "/nonexistent");
    process::run(command.args(arguments))
}

#[test]
fn mistyped_commands_and_options_get_a_suggestion_and_exit_code_2() -> Result<()> {
    for (typed, meant) in [
        (&["dcotor"][..], "doctor"),
        (&["home", "craete", "ada"], "create"),
        (&["up", "--stroe", "memory:"], "--store"),
        (&["home", "set-quota", "ada", "--qouta", "5G"], "--quota"),
    ] {
        let said = call(typed)?;
        ensure!(said.code == 2 && said.err.contains(meant), "{typed:?}: {said:?}");
    }
    Ok(())
}

#[test]
fn wrong_values_are_named_with_what_is_right() -> Result<()> {
    let said = call(&["home", "create", "ada", "--quota", "5Q"])?;
    ensure!(said.code == 2 && said.err.contains("5Q") && said.err.contains("50GB"), "{said:?}");
    let said = call(&["home", "create", "ada", "--quota", "-5"])?;
    ensure!(said.code == 2 && said.err.contains("not a size"), "{said:?}");
    let said = call(&["home", "create", "../ada"])?;
    ensure!(said.code == 2 && said.err.contains("cannot be called"), "{said:?}");
    let said = call(&["up", "--store", "rado://pool"])?;
    ensure!(said.code == 2 && said.err.contains("rados"), "{said:?}");
    let said = call(&["node"])?;
    ensure!(said.code == 2 && said.err.contains("--config FILE"), "{said:?}");
    let said = call(&["home", "set-quota", "ada"])?;
    ensure!(said.code == 2 && said.err.contains("--quota"), "{said:?}");
    Ok(())
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("node.toml");
    std::fs::write(&file, "store = \"memory:\"\n[home]\nqouta = \"5G\"\n")?;
    let said = call(&["node", "--config", &file.to_string_lossy()])?;
    ensure!(said.code == 2, "{said:?}");
    for part in ["node.toml:3", "`home.qouta`", "`home.quota`"] {
        ensure!(said.err.contains(part), "{part} is missing: {said:?}");
    }
    Ok(())
}

#[test]
fn every_command_has_help_with_an_example() -> Result<()> {
    for command in [
        &["up"][..],
        &["node"],
        &["mount"],
        &["umount"],
        &["home", "create"],
        &["home", "list"],
        &["home", "show"],
        &["home", "set-quota"],
        &["home", "remove"],
        &["home", "restore"],
        &["quota"],
        &["status"],
        &["stats"],
        &["sync"],
        &["doctor"],
        &["setup", "podman"],
        &["completion"],
    ] {
        let said = call(&[command, &["--help"]].concat())?;
        ensure!(said.code == 0 && said.out.contains("Examples:"), "{command:?}: {}", said.out);
        ensure!(said.out.contains(&format!("yadokari {}", command.join(" "))), "{command:?}");
    }
    Ok(())
}

#[test]
fn without_an_instance_commands_say_how_to_start_one() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().to_string_lossy();
    let status = call(&["status", "--data", &data])?;
    ensure!(status.code == 3 && status.out.contains("yadokari up --data"), "{status:?}");
    let status = call(&["status", "--json", "--data", &data])?;
    let facts: serde_json::Value = serde_json::from_str(&status.out)?;
    ensure!(facts["running"] == false && status.code == 3, "{status:?}");
    let looks: [&[&str]; 6] = [
        &["stats"],
        &["sync"],
        &["home", "list"],
        &["quota", "ada"],
        &["fsck"],
        &["home", "show", "ada"],
    ];
    for command in looks {
        let said = call(&[command, &["--data", &data]].concat())?;
        ensure!(said.code == 3 && said.err.contains("yadokari up"), "{said:?}");
    }
    ensure!(dir.path().read_dir()?.next().is_none(), "a look left something behind");
    Ok(())
}

#[test]
fn facts_come_as_json_with_stable_names_and_bytes() -> Result<()> {
    let mut instance = Instance::start(StoreKind::File)?;
    let user = instance.user()?;
    instance.ok(&["home", "set-quota", &user.name, "--quota", "50G", "--inodes", "1M"])?;
    let home = instance.json(&["home", "show", &user.name])?;
    ensure!(home["name"] == user.name.as_str() && home["uid"] == user.uid, "{home}");
    ensure!(home["bytes_limit"] == 50_u64 << 30 && home["inodes_limit"] == 1_000_000, "{home}");
    let list = instance.json(&["home", "list"])?;
    ensure!(list[0] == home || list[0]["name"] == home["name"], "{list}");
    let status = instance.json(&["status"])?;
    ensure!(status["running"] == true && status["pid"] == instance.pid().unwrap_or(0), "{status}");
    let stats = instance.json(&["stats", "--once"])?;
    ensure!(stats[0]["requests"].is_u64() && stats[0]["read_bytes"].is_u64(), "{stats}");
    let doctor = instance.run(&["doctor", "--json"])?;
    let report: serde_json::Value = serde_json::from_str(&doctor.out)?;
    ensure!((doctor.code == 0) == (report["ready"] == true), "{doctor:?}");
    ensure!(report["checks"][0]["result"].is_string(), "{report}");
    // The same facts when nothing runs, from the store alone.
    instance.stop()?;
    let stopped = instance.json(&["home", "show", &user.name])?;
    ensure!(stopped["bytes_limit"] == home["bytes_limit"] && stopped["open"] == false, "{stopped}");
    Ok(())
}

#[test]
fn exit_codes_tell_not_found_from_refused() -> Result<()> {
    let instance = Instance::start(StoreKind::File)?;
    let user = instance.user()?;
    let not_found = instance.run(&["home", "show", "nobody-here"])?;
    ensure!(not_found.code == 3 && not_found.err.contains("nobody-here"), "{not_found:?}");
    let exists = instance.run(&["home", "create", &user.name])?;
    ensure!(exists.code == 4 && exists.err.contains(&user.name), "{exists:?}");
    let unknown = instance.run(&["home", "create", "x", "--owner", "nobody-here"])?;
    ensure!(unknown.code == 3, "{unknown:?}");
    let second = instance.run(&["up"])?;
    let pid = instance.pid().unwrap_or(0).to_string();
    ensure!(second.code == 4 && second.err.contains(&pid), "{second:?}");
    let nowhere = instance.run(&["mount", &user.name, "/no/such/dir"])?;
    ensure!(nowhere.code == 3 && nowhere.err.contains("mkdir -p"), "{nowhere:?}");
    Ok(())
}

#[test]
fn up_says_ready_once_and_sigterm_unmounts_and_exits_with_0() -> Result<()> {
    let mut instance = Instance::start(StoreKind::File)?;
    ensure!(instance::is_plain() || instance::is_mounted(&instance.mount)?);
    instance.stop()?;
    instance.restart()?;
    instance.kill9();
    // The dead mount is detached by the next start.
    instance.restart()?;
    std::fs::read_dir(&instance.mount)?;
    instance.stop()
}

#[test]
fn setup_podman_keeps_foreign_settings_and_refuses_to_orphan_images() -> Result<()> {
    let home = tempfile::tempdir()?;
    let conf = home.path().join(".config/containers/storage.conf");
    let setup = |more: &[&str]| {
        let mut command = Command::new(instance::binary());
        command.env_clear().env("HOME", home.path()).env("PATH", "/usr/bin:/bin");
        process::run(command.args(["setup", "podman"]).args(more))
    };
    let vfs = home.path().join(".local/share/containers/storage/vfs-images");
    std::fs::create_dir_all(&vfs)?;
    std::fs::write(vfs.join("images.json"), "[{\"id\":\"x\"}]")?;
    let refused = setup(&[])?;
    if rustix::process::geteuid().is_root() {
        // Root's own images lie elsewhere; this home is nobody's.
        ensure!(refused.code == 0 || refused.code == 4, "{refused:?}");
    } else {
        ensure!(refused.code == 4 && refused.err.contains("podman save"), "{refused:?}");
    }
    std::fs::write(vfs.join("images.json"), "[]")?;
    std::fs::create_dir_all(conf.parent().unwrap_or(home.path()))?;
    std::fs::write(&conf, "# mine\n[storage.options]\nignore_chown_errors = \"true\"\n")?;
    let dry = setup(&["--dry-run"])?;
    ensure!(dry.code == 0 && dry.out.contains("would change"), "{dry:?}");
    ensure!(!std::fs::read_to_string(&conf)?.contains("driver"));
    let done = setup(&["--json"])?;
    ensure!(done.code == 0, "{done:?}");
    let text = std::fs::read_to_string(&conf)?;
    for kept in ["# mine", "ignore_chown_errors", "driver = \"overlay\""] {
        ensure!(text.contains(kept), "{kept} is missing in {text}");
    }
    ensure!(setup(&[])?.out.contains("nothing to change"));
    Ok(())
}

/// The tour of the README, on a machine of its own: root serves, a user who names nothing asks.
#[test]
fn a_user_without_an_instance_of_their_own_means_that_of_the_machine() -> Result<()> {
    if instance::is_plain() {
        return Ok(());
    }
    let scratch = tempfile::tempdir()?;
    let user = yadokari_tests::user::User::create(scratch.path())?;
    let script = format!(
        "set -eu; mkdir -p /var/lib/yadokari; mount -t tmpfs tmpfs /var/lib/yadokari
        {yadokari} up > {log} 2>&1 & up=$!
        trap 'kill $up; wait $up; cat {log} >&2' EXIT
        for n in $(seq 600); do grep -q ^ready {log} && break; kill -0 $up; sleep 0.1; done
        grep ^ready {log}
        {yadokari} home create {name} --quota 10M
        as='setpriv --reuid {uid} --regid {gid} --init-groups env -i HOME={home} PATH=/usr/bin:/bin'
        $as {yadokari} quota --json
        $as {yadokari} status --json
        cd /var/lib/yadokari/home/{name} && $as sh -c 'echo text > file'",
        yadokari = instance::binary().display(),
        log = scratch.path().join("log").display(),
        name = user.name,
        uid = user.uid,
        gid = user.gid,
        home = user.home.display(),
    );
    let mut command = Command::new("unshare");
    let said = process::run(command.args(["--mount", "bash", "-c", &script]))?;
    ensure!(said.code == 0, "{said:?}");
    ensure!(said.out.contains("\"bytes_limit\": 10485760"), "{said:?}");
    Ok(())
}
