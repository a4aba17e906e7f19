//! Random operations on the mount and on a local directory: same errno, same trees.

use std::fs;

use anyhow::Result;
use yadokari_tests::differential;
use yadokari_tests::instance::{Instance, Options, is_plain};
use yadokari_tests::on_every_store;
use yadokari_tests::stores::StoreKind;

/// Seconds; `make test-long` runs many times as many, from new seeds.
const OPERATIONS: usize = 10_000;

on_every_store! {
    random_operations_do_on_the_mount_what_they_do_on_a_local_disk => random_operations;
}

/// As a node mounts it, where every open, close and lock comes to the daemon.
#[test]
fn random_operations_do_on_a_nodes_mount_what_they_do_on_a_local_disk() -> Result<()> {
    run(Instance::start_with(StoreKind::File, Options { node: true, ..Options::default() })?)
}

fn random_operations(store: StoreKind) -> Result<()> {
    run(Instance::start(store)?)
}

fn run(mut instance: Instance) -> Result<()> {
    let user = instance.user()?;
    let (here, there) = (user.home.join("run"), instance.beside().join("local"));
    for dir in [&here, &there] {
        fs::create_dir(dir)?;
        // Wide open, so that the plain users of the run get anywhere at all.
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    }
    fs::set_permissions(&user.home, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    let (seed, operations) = differential::plan(OPERATIONS);
    differential::run(&there, &here, seed, operations)?;
    if !is_plain() {
        // And what a restart reads back from the store is the same again.
        instance.stop()?;
        instance.restart()?;
        differential::same_trees(&there, &here)?;
        instance.fsck_is_clean()?;
    }
    Ok(())
}
