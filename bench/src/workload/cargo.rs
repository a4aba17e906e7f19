//! A small crate, built for the first time and after a change.

use anyhow::Result;

use super::Workload;
use crate::input;
use crate::place::Place;
use crate::size::Size;

pub const WORKLOAD: Workload = Workload {
    name: "cargo",
    about: "cargo build of a small crate",
    rounds_max: usize::MAX,
    is_quick: false,
    prepare: |_| input::toolchain().map(drop),
    run,
};

fn run(place: &mut Place<'_>, size: Size) -> Result<()> {
    let toolchain = input::toolchain()?;
    let modules = size.of(200, 40, 4);
    let path = format!(
        "export PATH={}/bin:$PATH CARGO_TERM_QUIET=true CARGO_HOME=~/.cargo",
        toolchain.display()
    );
    let make = format!(
        r#"{path}; cargo new --quiet --vcs none app; cd app
        for n in $(seq {modules}); do
            echo "pub fn f(x: u64) -> Vec<String> {{ (0..x % $n + 1).map(|y| format!(\"{{y:?}}\")).collect() }}" > src/m$n.rs
            echo "mod m$n;" >> mods; echo "x += m$n::f(x).len() as u64;" >> calls
        done
        {{ cat mods; echo 'fn main() {{ let mut x = 1;'; cat calls; echo 'println!("{{x}}"); }}'; }} > src/main.rs"#
    );
    let build = format!("{path}; cd ~/app; cargo build --offline");
    place.time_with("cargo build", &make, &build)?;
    place.time_with("cargo build, changed", "echo '// more' >> app/src/m1.rs", &build)?;
    // Now and then ceph-fuse says that a directory it has just emptied is not empty.
    place.sh("rm -rf app .cargo || rm -rf app .cargo")?;
    place.settle()
}
