//! Records of homes as one head each, without owner records: stands in until the homes of the
//! store have theirs.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use yadokari_fs::home::{
    Attr, Error, ErrorKind, Home, Ino, Kind, OpenHome, Quota, Result, Shared, Time, Usage,
};
use yadokari_fs::node::{NewHome, Records};
use yadokari_fs::view::{Head, Space};
use yadokari_store::Store;
use yadokari_store::head::{HeadError, HeadVersion, create_head, find_head, swap_head};
use yadokari_store::object_store::path::Path;

#[derive(Serialize, Deserialize, Clone)]
struct Record {
    name: String,
    volume: u32,
    uid: u32,
    gid: u32,
    perm: u16,
    nlink: u32,
    xattrs: bool,
    times: [(i64, u32); 4],
    bytes: u64,
    inodes: u64,
    bytes_limit: u64,
    inodes_limit: u64,
    removed: bool,
}

pub struct PlainRecords {
    store: Store,
    shared: Arc<Shared>,
}

impl PlainRecords {
    pub fn new(store: Store, shared: Arc<Shared>) -> Self {
        Self { store, shared }
    }

    async fn read(&self, name: &str) -> Result<Option<(Record, HeadVersion)>> {
        let found = find_head(&*self.store.meta, &path(name)).await.map_err(failed)?;
        let Some(head) = found else { return Ok(None) };
        let record = serde_json::from_slice(&head.data).map_err(Error::corrupt)?;
        Ok(Some((record, head.version)))
    }

    async fn change(&self, name: &str, change: impl Fn(&mut Record)) -> Result<Head> {
        loop {
            let (mut record, version) = self.read(name).await?.ok_or(ErrorKind::NotFound)?;
            change(&mut record);
            let data = serde_json::to_vec(&record).map_err(Error::corrupt)?;
            match swap_head(&*self.store.meta, &path(name), &version, &data).await {
                Ok(_) => return Ok(head(&record)),
                Err(HeadError::Conflict(_)) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

#[async_trait]
impl Records for PlainRecords {
    async fn show(&self, name: &str) -> Result<Option<Head>> {
        Ok(self.read(name).await?.filter(|(record, _)| !record.removed).map(|(r, _)| head(&r)))
    }

    async fn list(&self) -> Result<Vec<Head>> {
        let prefix = Path::from("heads");
        let found = self.store.meta.list_with_delimiter(Some(&prefix)).await;
        let found = found.map_err(Error::unavailable)?;
        let mut heads = Vec::new();
        for object in found.objects {
            if let Some(head) = self.show(object.location.filename().unwrap_or("")).await? {
                heads.push(head);
            }
        }
        Ok(heads)
    }

    async fn create(&self, new: NewHome) -> Result<Head> {
        if let Some((record, _)) = self.read(&new.name).await? {
            let kind = if record.removed { ErrorKind::NotPermitted } else { ErrorKind::Exists };
            return Err(kind.into());
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let record = Record {
            volume: u32::from_le_bytes(blake3_of(&new.name)[..4].try_into().expect("four bytes"))
                & 0x7f_ffff
                | 1,
            name: new.name.clone(),
            uid: new.owner.0,
            gid: new.owner.1,
            perm: 0o700,
            nlink: 2,
            xattrs: false,
            times: [(i64::try_from(now.as_secs()).unwrap_or(0), 0); 4],
            bytes: 0,
            inodes: 1,
            bytes_limit: new.quota.bytes,
            inodes_limit: new.quota.inodes,
            removed: false,
        };
        let data = serde_json::to_vec(&record).map_err(Error::corrupt)?;
        create_head(&*self.store.meta, &path(&new.name), &data).await.map_err(failed)?;
        Ok(head(&record))
    }

    async fn set_quota(&self, name: &str, quota: Quota) -> Result<Head> {
        self.change(name, |record| {
            record.bytes_limit = quota.bytes;
            record.inodes_limit = quota.inodes;
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.change(name, |record| record.removed = true).await.map(drop)
    }

    async fn restore(&self, name: &str) -> Result<Head> {
        self.change(name, |record| record.removed = false).await
    }

    async fn open(&self, head: &Head) -> Result<Home> {
        Home::open(OpenHome {
            name: head.name.to_string(),
            data: Arc::clone(&self.store.data),
            meta: Arc::clone(&self.store.meta),
            prefix: Path::from(format!("homes/{}", head.name)),
            quota: Quota { bytes: head.usage.bytes_limit, inodes: head.usage.inodes_limit },
            root_uid: head.root.uid,
            root_gid: head.root.gid,
            root_perm: head.root.perm,
            shared: Arc::clone(&self.shared),
            tenure: Arc::new(yadokari_fs::home::Undisputed),
            seed: None,
        })
        .await
    }

    async fn closed(&self, closed: &Head, root: Attr, usage: Usage) -> Result<Head> {
        self.change(&closed.name, |record| {
            record.uid = root.uid;
            record.gid = root.gid;
            record.perm = root.perm;
            record.nlink = root.nlink;
            record.bytes = usage.bytes;
            record.inodes = usage.inodes;
            record.times =
                [root.atime, root.mtime, root.ctime, root.btime].map(|time| (time.sec, time.nsec));
        })
        .await
    }

    fn space(&self) -> Option<Space> {
        None
    }
}

fn blake3_of(name: &str) -> [u8; 8] {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    (hash ^ (hash >> 32)).to_le_bytes()
}

fn path(name: &str) -> Path {
    Path::from(format!("heads/{name}"))
}

fn failed(error: HeadError) -> Error {
    match error {
        HeadError::NotFound(_) => ErrorKind::NotFound.into(),
        HeadError::Exists(_) | HeadError::Conflict(_) => ErrorKind::Exists.into(),
        HeadError::Corrupt { .. } => Error::corrupt(error),
        HeadError::NoSpace(_) => ErrorKind::NoSpace.into(),
        HeadError::Store { .. } => Error::unavailable(error),
    }
}

fn head(record: &Record) -> Head {
    let time = |at: usize| Time { sec: record.times[at].0, nsec: record.times[at].1 };
    Head {
        name: record.name.as_str().into(),
        volume: record.volume,
        root: Attr {
            ino: Ino::ROOT,
            kind: Kind::Dir,
            perm: record.perm,
            nlink: record.nlink,
            uid: record.uid,
            gid: record.gid,
            rdev: 0,
            size: 4096,
            charged: 0,
            atime: time(0),
            mtime: time(1),
            ctime: time(2),
            btime: time(3),
        },
        root_xattrs: record.xattrs,
        usage: Usage {
            bytes: record.bytes,
            bytes_limit: record.bytes_limit,
            inodes: record.inodes,
            inodes_limit: record.inodes_limit,
        },
    }
}
