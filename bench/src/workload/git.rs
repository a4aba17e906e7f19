//! A repository: cloned, and asked for its status warm, and cold after a restart.

use anyhow::Result;

use super::Workload;
use crate::input;
use crate::place::Place;
use crate::size::Size;

pub const WORKLOAD: Workload = Workload {
    name: "git",
    about: "git clone, and git status warm and cold",
    rounds_max: usize::MAX,
    is_quick: true,
    prepare: |size| input::repository(size).map(drop),
    run,
};

fn run(place: &mut Place<'_>, size: Size) -> Result<()> {
    let repository = input::repository(size)?;
    input::at_hand(&repository)?;
    place.sh("git config --global safe.directory '*'")?;
    let clone = format!("git clone -q file://{} clone", repository.display());
    place.time("git clone", &clone)?;
    place.settle()?;
    let status = "git -C clone status --porcelain";
    // git compares the contents of what is not older than its index, in whole seconds: without a
    // second between, chance says how much that is.
    place.sh(&format!("sleep 1.1; {status}"))?;
    place.time("git status", &format!("{status}\n{status}\n{status}"))?;
    place.cold()?;
    place.time("git status, cold", status)?;
    place.sh("rm -rf clone .gitconfig")?;
    place.settle()
}
