//! `yadokari mount` and `yadokari umount`.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use yadokari_fs::node::client::ClientError;
use yadokari_fs::node::control::{FailureKind, Request};
use yadokari_fs::view::Form;

use crate::args::{MountArgs, UmountArgs};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::{instance, serve};

/// Shows one home: through the daemon, or by serving it here.
///
/// # Errors
/// The daemon's reason, or the store's.
pub fn mount(mut settings: Settings, arguments: MountArgs) -> anyhow::Result<Exit> {
    let dir = existing(&arguments.dir)?;
    // A store of its own means a home that the daemon here does not know.
    if arguments.store.is_none()
        && let Some(mut client) = instance::connect(&settings)?
    {
        let mounted = client.mount(&arguments.home, &dir);
        mounted.map_err(|error| instance::translate(error, &settings.data))?;
        return Ok(Exit::Done);
    }
    if let Some(store) = arguments.store {
        settings.store = Some(store);
    }
    // Its own lock and socket: several homes may be mounted side by side.
    let store_url = settings.store_url();
    settings.store = Some(store_url);
    settings.data = settings.data.join("mounts").join(format!("{}", std::process::id()));
    let shows = serve::one_home(&arguments.home, dir);
    let take_over = arguments.take_over;
    let gateway = false;
    let plan = serve::Plan { shows, form: Form::Local, announce: true, take_over, gateway };
    let done = serve::run(&settings, plan);
    // A directory of this one process; what is left in it after a crash is a lock and a socket.
    let _ = std::fs::remove_dir_all(&settings.data);
    done
}

/// Ends a mount, whoever serves it.
///
/// # Errors
/// `NotFound` when nothing of ours is mounted there; `Refused` when it is in use.
pub fn umount(settings: &Settings, arguments: &UmountArgs) -> anyhow::Result<Exit> {
    let dir = existing(&arguments.dir)?;
    if let Some(mut client) = instance::connect(settings)? {
        let request = Request::Umount { path: dir.clone(), lazy: false };
        match client.request::<()>(&request) {
            Ok(()) => return Ok(Exit::Done),
            // Mounted by a `yadokari mount` of its own.
            Err(ClientError::Failed(failure)) if failure.kind == FailureKind::NotFound => {}
            Err(error) => return Err(instance::translate(error, &settings.data).into()),
        }
    }
    if !is_ours(&dir)? {
        let message = format!("{}: no mount of Yadokari", dir.display());
        return Err(Failure::not_found(message).remedy("yadokari status shows the mounts").into());
    }
    let root = rustix::process::geteuid().is_root();
    let (program, arguments): (_, &[&str]) =
        if root { ("umount", &[]) } else { ("fusermount3", &["-u"]) };
    let output = Command::new(program).args(arguments).arg(&dir).output();
    let output = output.with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let message = format!("{}: {why}", dir.display());
        return Err(Failure::refused(message)
            .remedy("end what uses it: `lsof DIR` shows it")
            .into());
    }
    Ok(Exit::Done)
}

/// Absolute and without symbolic links, as the mount table has it.
fn existing(dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    std::fs::canonicalize(dir).map_err(|error| {
        let message = format!("{}: {error}", dir.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                Failure::not_found(message).remedy(format!("mkdir -p {}", dir.display())).into()
            }
            _ => Failure::failed(message).into(),
        }
    })
}

fn is_ours(dir: &Path) -> anyhow::Result<bool> {
    let table = std::fs::read_to_string("/proc/self/mounts")?;
    let dir = dir.to_string_lossy().replace(' ', "\\040");
    Ok(table.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(&dir) && fields.next() == Some(yadokari_fs::fuse::FSTYPE)
    }))
}
