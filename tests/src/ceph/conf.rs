//! The files a cluster begins with: configuration, keys, the monitors' map, empty data directories.

use super::Options;
use super::process;
use anyhow::{Context, Result};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// Writes everything that must be there before the first daemon; gives the OSDs' identities.
pub(super) fn write(dir: &Path, options: &Options) -> Result<Vec<String>> {
    for name in ["run", "log", "mon", "mgr", "mds", "crash"] {
        fs::create_dir(dir.join(name))?;
    }
    let port = free_port(&options.address)?;
    let fsid = identity();
    let text = conf(dir, port, &fsid, options);
    fs::write(dir.join("ceph.conf"), text).context("writing ceph.conf")?;
    keys(dir, options.osds)?;
    let map = dir.join("monmap");
    let address = format!("[v2:{}:{port}]", options.address);
    let mut tool = Command::new("monmaptool");
    tool.args(["--create", "--clobber", "--addv", "a", &address, "--fsid", &fsid]);
    process::output(at(tool, &map))?;
    let mut mkfs = Command::new("ceph-mon");
    mkfs.args(["--mkfs", "-i", "a", "-c"]).arg(dir.join("ceph.conf"));
    mkfs.arg("--monmap").arg(&map).arg("--keyring").arg(dir.join("keyring"));
    process::output(mkfs)?;
    let mut uuids = Vec::new();
    for id in 0..options.osds {
        fs::create_dir(dir.join(format!("osd.{id}")))?;
        uuids.push(identity());
    }
    Ok(uuids)
}

fn at(mut command: Command, path: &Path) -> Command {
    command.arg(path);
    command
}

/// One keyring for everybody. The monitor takes all of it over at mkfs.
fn keys(dir: &Path, osds: usize) -> Result<()> {
    let mut users = vec![
        ("mon.".to_owned(), vec!["mon", "allow *"]),
        (
            "client.admin".to_owned(),
            vec!["mon", "allow *", "osd", "allow *", "mgr", "allow *", "mds", "allow *"],
        ),
        ("mgr.x".to_owned(), vec!["mon", "allow profile mgr", "osd", "allow *", "mds", "allow *"]),
    ];
    let caps = vec!["mon", "allow profile mds", "osd", "allow rwx", "mds", "allow *"];
    users.push(("mds.a".to_owned(), caps));
    for id in 0..osds {
        let caps = vec!["mon", "allow profile osd", "osd", "allow *", "mgr", "allow profile osd"];
        users.push((format!("osd.{id}"), caps));
    }
    fs::write(dir.join("keyring"), "")?;
    for (user, caps) in users {
        let mut tool = Command::new("ceph-authtool");
        tool.arg(dir.join("keyring")).args(["--gen-key", "-n", &user]);
        for cap in caps.chunks(2) {
            tool.arg("--cap").args(cap);
        }
        process::output(tool)?;
    }
    Ok(())
}

fn conf(dir: &Path, port: u16, fsid: &str, options: &Options) -> String {
    let dir = dir.display();
    let store = if options.bluestore { "bluestore" } else { "memstore" };
    let (address, settings) = (&options.address, options.settings.join("\n"));
    format!(
        "[global]
fsid = {fsid}
mon host = v2:{address}:{port}
mon initial members = a
public addr = {address}
cluster addr = {address}
ms bind ipv6 = false
keyring = {dir}/keyring
run dir = {dir}/run
admin socket = {dir}/run/$name.$pid.asok
pid file =
log file = {dir}/log/$name.log
log to stderr = false
err to stderr = true
crash dir = {dir}/crash
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
mon data = {dir}/mon
mgr data = {dir}/mgr
mds data = {dir}/mds
osd data = {dir}/osd.$id
# one node, one copy
osd pool default size = 1
osd pool default min size = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
osd crush chooseleaf type = 0
osd crush update on start = true
# a full machine is not what is tested
mon data avail crit = 1
mon data avail warn = 1
osd objectstore = {store}
memstore device bytes = 8589934592
memstore page set = false
bluestore block size = 8589934592
bluestore fsck on mount = false
# an OSD that was killed reads its log again: seconds of it, not minutes
bluestore rocksdb options annex = max_total_wal_size=67108864
# maps change quickly, and a stopped OSD keeps its memory
paxos propose interval = 0.05
mon tick interval = 1
mgr stats period = 1
osd fast shutdown = false
osd mon shutdown timeout = 1
osd heartbeat interval = 2
osd heartbeat grace = 10
mon osd min down reporters = 1
osd max object size = 134217728
# a small machine
ms async op threads = 1
osd op num shards = 2
osd op num threads per shard = 1
{settings}
"
    )
}

fn free_port(address: &str) -> Result<u16> {
    let listener = TcpListener::bind((address, 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// A random UUID (version 4).
fn identity() -> String {
    let mut bits: u128 = rand::random();
    bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let cuts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    cuts.join("-")
}
