//! Inode numbers of a mount: which home, and which inode in it.
//!
//! A number is a 24-bit volume in front of the home's own 40-bit number, so it is unique on the
//! mount, the same after a restart, and never looked up in the memory of a daemon. Volume 0 is
//! the directory that lists the homes.

use crate::home::Ino;

/// The root of every FUSE mount, by the kernel's convention.
pub const MOUNT_ROOT: u64 = 1;

/// The volume of the directory of homes.
pub const HOMES_VOLUME: u32 = 0;

/// Volume numbers are below this.
pub const VOLUMES_MAX: u32 = 1 << 24;

/// The number that a mount of all homes shows for `ino` of `volume`.
#[must_use]
pub fn join(volume: u32, ino: Ino) -> u64 {
    debug_assert!(volume < VOLUMES_MAX && ino <= Ino::MAX);
    (u64::from(volume) << Ino::BITS) | ino.0
}

/// The volume and the home's own number of a mount's inode number.
#[must_use]
pub fn split(node: u64) -> (u32, Ino) {
    let volume = u32::try_from(node >> Ino::BITS).expect("24 bits are left after a shift by 40");
    (volume, Ino(node & Ino::MAX.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_gives_its_volume_and_inode_back() {
        for volume in [0, 1, 77, VOLUMES_MAX - 1] {
            for ino in [Ino::ROOT, Ino(2), Ino::MAX] {
                assert_eq!(split(join(volume, ino)), (volume, ino));
            }
        }
    }

    #[test]
    fn the_directory_of_homes_is_the_root_of_the_mount() {
        assert_eq!(join(HOMES_VOLUME, Ino::ROOT), MOUNT_ROOT);
    }
}
