//! One large file of random data: written and synced, read cold and warm, by one and by more
//! readers, and written in blocks of several sizes.

use anyhow::Result;

use super::Workload;
use crate::input;
use crate::place::Place;
use crate::size::Size;

pub const WORKLOAD: Workload = Workload {
    name: "large",
    about: "1 GiB of random data: write with fdatasync, read cold and warm, one to three readers",
    rounds_max: 3,
    is_quick: true,
    prepare: |size| input::random(size.large_bytes()).map(drop),
    run,
};

/// Block sizes of the chart of writing speed; 1 MiB is the figure of the table.
const BLOCKS: [(&str, &str); 4] =
    [("4k", "write, 4k"), ("64k", "write, 64k"), ("256k", "write, 256k"), ("4M", "write, 4M")];

fn run(place: &mut Place<'_>, size: Size) -> Result<()> {
    let source = input::random(size.large_bytes())?;
    let dd = |bs: &str, to: &str| {
        format!("dd if={} of={to} bs={bs} conv=fdatasync status=none", source.display())
    };
    let memory_at_hand = || input::memory_at_hand(size.large_bytes() * 2);
    memory_at_hand();
    place.time("write", &dd("1M", "large"))?;
    place.drop_caches()?;
    place.time("read, cache dropped", "dd if=large of=/dev/null bs=1M status=none")?;
    place.time("read, warm", "dd if=large of=/dev/null bs=1M status=none")?;
    place.cold()?;
    memory_at_hand();
    place.time("read, cold", "dd if=large of=/dev/null bs=1M status=none")?;
    if size != Size::Quick {
        place.sh("cp large large2; cp large large3")?;
        for (name, files) in
            [("two readers, cold", "large large2"), ("three readers, cold", "large large2 large3")]
        {
            place.cold()?;
            place.time(name, &format!("for f in {files}; do cat $f > /dev/null & done; wait"))?;
        }
        place.sh("rm large2 large3")?;
        for (block, name) in BLOCKS {
            memory_at_hand();
            place.time_with(name, "rm large", &dd(block, "large"))?;
        }
    }
    place.sh("rm large")?;
    place.settle()
}
