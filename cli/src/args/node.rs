//! Commands that serve, watch, check and mount.

use std::path::PathBuf;

use clap::Args;

use super::Output;
use crate::size::{parse_bytes_arg, parse_count_arg};

/// `yadokari up`.
#[derive(Debug, Default, Args)]
#[command(after_long_help = "\
Prints one line, `ready …`, on standard output when everything serves (and tells systemd);
everything else goes to standard error. SIGTERM and SIGINT write everything to the store,
unmount and exit with 0. A second start on the same data says who holds it. After a crash, or
kill -9, start it again: it detaches the dead mount and goes on.

Root serves all homes, for all users, and makes a home when its user first looks it up. Anybody
else gets one home, their own.

Examples:
  yadokari up
  yadokari up --data /srv/yadokari --home /home
  yadokari up --store 'rados://homes?conf=/etc/ceph/ceph.conf'
  yadokari up --quota 50G --inodes 1M")]
pub struct UpArgs {
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// `yadokari node`.
#[derive(Debug, Default, Args)]
#[command(after_long_help = "\
Like `up`, but all settings come from the configuration file (see `yadokari --help` for the
order), and homes are mounted such that other nodes can share them without a remount.

Examples:
  yadokari node --config /etc/yadokari/node.toml

A configuration file, with every key and its default:

  data  = \"/var/lib/yadokari\"     # state of this machine: socket, lock, caches, embedded store
  store = \"rados://homes\"         # default: file:// under the data directory
  log   = \"info\"

  [home]
  mount       = \"/home\"           # default: DATA/home
  quota       = \"none\"            # of a new home: 50G (binary), 50GB (decimal), none
  inodes      = \"none\"            # of a new home: 1M is 1,000,000
  create      = true              # make a home when its user first looks it up
  skeleton    = \"/etc/skel\"

  [memory]
  data_cache  = \"40M\"             # contents kept for reading
  table_cache = \"44M\"             # metadata
  dirty_max   = \"64M\"             # acknowledged, not yet stored; writers wait beyond it
  inodes_max  = \"20k\"             # inodes kept decoded

  [timing]
  commit      = \"1s\"              # names are stored at the latest after this
  flush       = \"2s\"              # data is stored at the latest after this
  store_timeout = \"90s\"           # an operation that waits for the store fails after this
  idle        = \"10m\"             # a home that nothing used for so long is closed
  awake       = \"4ms\"             # idle processors stay awake for so long after requests that
                                  # come fast; 0s: never")]
pub struct NodeArgs {
    /// Take homes over from a node that still looks alive. Only when you know it is dead
    #[arg(long)]
    pub take_over: bool,
}

/// `yadokari gateway`.
#[derive(Debug, Default, Args)]
#[command(after_long_help = "\
Serves an OCI registry from the store, beside any number of others on the same store; all of
them are one registry. Prints `ready gateway=http://ADDR:PORT …` on standard output when it
serves. SIGTERM and SIGINT let transfers end, then exit with 0.

Examples:
  yadokari gateway --config /etc/yadokari/gateway.toml
  curl http://127.0.0.1:5000/healthz      also /readyz and, from this machine, /metrics

A configuration file, with every key of the gateway and its default:

  store = \"rados://images\"        # default: file:// under the data directory

  [gateway]
  listen          = \"127.0.0.1:5000\"   # several, separated by commas; none
  external_url    = \"https://registry.example\"   # behind a proxy; default: relative Locations
  tls_certificate = \"/etc/yadokari/cert.pem\"   # with its chain; default: no TLS
  tls_key         = \"/etc/yadokari/key.pem\"    # both are read again when they change
  trusted_proxies = \"10.0.0.1\"       # whose X-Forwarded-For counts; default: nobody's
  metrics_listen  = \"10.0.0.2:9100\"  # metrics and health alone; default: none
  sparse          = false            # take manifests whose blobs are not here
  quota           = \"none\"           # of an owner's images: 50G, 50GB, none
  transfer_memory = \"24M\"            # all transfers together, beyond 64K each
  cache_memory    = \"40M\"            # tags, rights, manifests
  blob_max        = \"1T\"
  connections_max = 1024
  requests_max    = 256              # of one caller at the same time
  stall_time      = \"60s\"            # a client that sends or takes nothing is cut off
  shutdown_time   = \"60s\"            # transfers may go on for so long at the end
  upload_expiry   = \"24h\"            # an upload that nobody goes on with
  untagged_expiry = \"14d\"            # a manifest that no tag, index or subject keeps
  collect_interval = \"1h\"            # unused blobs are looked for; none
  collect_grace   = \"48h\"            # between finding and removing one

  [auth]                             # who may call; see gateway/DESIGN.md
  admins = [\"ada\"]

  [auth.htpasswd]
  file = \"/etc/yadokari/htpasswd\"    # made with htpasswd -B")]
pub struct GatewayArgs {
    /// Where to listen; several separated by commas
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Where images are kept: as for `yadokari up`
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
}

/// What `up` takes from flags.
#[derive(Debug, Default, Clone, Args)]
pub struct ServeArgs {
    /// Where homes are kept: file:///DIR, rados://[CLIENT@]POOL[/NAMESPACE][?conf=…&meta_pool=…],
    /// s3://BUCKET/PREFIX or memory:
    ///
    /// Default: a directory under the data directory.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Where homes are mounted [default: DATA/home]
    #[arg(long, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Where the image registry listens; `none` for no registry [default: 127.0.0.1:5000]
    ///
    /// On a loopback address the kernel says who calls, so that users of this machine need no
    /// login. If nobody chose the address and it is taken, another port is.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Bytes that a new home may use: 50G, 50GB or none
    #[arg(long, value_name = "SIZE")]
    #[arg(value_parser = parse_bytes_arg)]
    pub quota: Option<u64>,
    /// Files and directories that a new home may hold: 1M (1,000,000) or none
    #[arg(long, value_name = "COUNT")]
    #[arg(value_parser = parse_count_arg)]
    pub inodes: Option<u64>,
    /// Take homes over from a node that still looks alive. Only when you know it is dead
    #[arg(long)]
    pub take_over: bool,
}

/// `yadokari mount`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Asks the running daemon when there is one, and is then one more user of the home that the daemon
has open. Without a daemon it opens the store itself and serves in the foreground until `umount`,
SIGTERM or SIGINT.

Examples:
  yadokari mount ada /mnt/ada
  yadokari mount ada ~/there --store 'rados://homes?conf=/etc/ceph/ceph.conf'")]
pub struct MountArgs {
    /// The home
    pub home: String,
    /// An empty directory of yours
    pub dir: PathBuf,
    /// Where the home is kept, when no daemon runs
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Take the home over from a node that still looks alive. Only when you know it is dead
    #[arg(long)]
    pub take_over: bool,
}

/// `yadokari umount`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  yadokari umount /mnt/ada")]
pub struct UmountArgs {
    /// Where the home is mounted
    pub dir: PathBuf,
}

/// `yadokari stats`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadokari stats                   refreshes every second; Ctrl-C ends it
  yadokari stats --once            totals since the start
  yadokari stats --json            one JSON object per line and second
  yadokari stats --json --once     one JSON object")]
pub struct StatsArgs {
    #[command(flatten)]
    pub output: Output,
    /// Print once and exit
    #[arg(long)]
    pub once: bool,
    /// Seconds between two refreshes
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub interval: u64,
}

/// `yadokari fsck`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A check disturbs nobody: where the daemon runs it checks the home while it is served, else as it
lies in the store. It names the files that are hurt. A repair mends counts, removes what nothing
refers to, and hangs lost files into lost+found; it never touches damaged contents, which stay
readable where they are whole. A repair needs the home for itself: stop the daemon first.

Exits with 0 when everything is well (or was mended), 1 when something is wrong.

Examples:
  yadokari fsck                    all homes
  yadokari fsck ada --verify-data  every byte of one home
  yadokari fsck ada --repair
  yadokari fsck --json | jq '.[] | select(.clean | not)'")]
pub struct FsckArgs {
    /// The home [default: all homes]
    pub home: Option<String>,
    /// Mend what can be mended safely
    #[arg(long)]
    pub repair: bool,
    /// Repair homes of a node that still looks alive. Only when you know it is dead
    #[arg(long, requires = "repair")]
    pub take_over: bool,
    /// Read all contents and compare them with their hashes
    #[arg(long)]
    pub verify_data: bool,
    #[command(flatten)]
    pub output: Output,
}

/// `yadokari sync`.
#[derive(Debug, Args)]
#[command(after_help = "\
sync(1) and syncfs(2) never reach a FUSE file system; this does what they would.

Examples:
  yadokari sync
  yadokari sync ada")]
pub struct SyncArgs {
    /// Only this home
    pub home: Option<String>,
}
