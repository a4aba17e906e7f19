//! numpy: installed into a virtual environment and imported for the first time.

use anyhow::Result;

use super::Workload;
use crate::input;
use crate::place::Place;
use crate::size::Size;

pub const WORKLOAD: Workload = Workload {
    name: "python",
    about: "pip install of numpy, and its first import",
    rounds_max: usize::MAX,
    is_quick: false,
    prepare: |_| input::wheels().map(drop),
    run,
};

fn run(place: &mut Place<'_>, size: Size) -> Result<()> {
    let wheels = input::wheels()?;
    input::at_hand(&wheels)?;
    let pip = size.of("", "", " --no-compile");
    place.time_with(
        "pip install numpy",
        "/usr/bin/python3 -m venv env",
        &format!("env/bin/pip install -q --no-index{pip} --find-links {} numpy", wheels.display()),
    )?;
    place.cold()?;
    place.time("import numpy, cold", "env/bin/python -c 'import numpy'")?;
    place.time("import numpy", "env/bin/python -c 'import numpy'")?;
    place.sh("rm -rf env .cache")?;
    place.settle()
}
