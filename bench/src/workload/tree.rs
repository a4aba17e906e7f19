//! A tree of sources: unpacked, walked warm and cold, packed, copied, removed.

use anyhow::Result;

use super::Workload;
use crate::input;
use crate::place::Place;
use crate::size::Size;

pub const WORKLOAD: Workload = Workload {
    name: "tree",
    about: "untar, find, du, tar, cp -r and rm -rf of sources of crates",
    rounds_max: usize::MAX,
    is_quick: true,
    prepare: |size| input::sources(size).map(drop),
    run,
};

const FIND: &str = "find src -type f -size +4k | wc -l > found";
const DU: &str = "du -s src > used";
/// That a file changed while it was read (as ceph-fuse shows times that it learns later) is no
/// failure here.
const TAR: &str = "{ tar -cf - src || [ $? = 1 ]; } | cat > /dev/null";

fn run(place: &mut Place<'_>, size: Size) -> Result<()> {
    let sources = input::sources(size)?;
    input::at_hand(&sources)?;
    place.time("untar", &format!("tar -xf {}", sources.display()))?;
    place.settle()?;
    place.sh(&format!("{FIND}; {TAR}"))?;
    place.time("find", FIND)?;
    place.time("du", DU)?;
    place.time("tar", TAR)?;
    place.cold()?;
    place.time("find, cold", FIND)?;
    place.cold()?;
    place.time("tar, cold", TAR)?;
    place.time("cp -r", "cp -r src copy")?;
    place.settle()?;
    place.sh("diff -rq src copy; rm -rf copy")?;
    place.settle()?;
    place.time("rm -rf", "rm -rf src")?;
    place.sh("rm -f found used")?;
    place.settle()
}
