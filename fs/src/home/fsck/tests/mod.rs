//! A home on memory, made through its operations, closed, and damaged record by record.

mod damage;
mod healthy;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::{Invariant, Options, Repaired, Report, check_closed, repair};
use crate::home::key::{self, Key};
use crate::home::record::{Bucket, ChunkRecord, InodeRecord, decode_bucket, encode_bucket};
use crate::home::segment::{ChunkId, SegmentId};
use crate::home::table::{Batch, Table, TableOptions};
use crate::home::*;

/// A home and what it lies on.
pub struct Bed {
    pub meta: Arc<dyn ObjectStore>,
    pub data: Arc<dyn ObjectStore>,
    pub shared: Arc<Shared>,
    pub inos: BTreeMap<String, Ino>,
}

pub fn name(s: &str) -> Name {
    Name::new(s.as_bytes()).expect("a name")
}

pub fn node(kind: Kind) -> NewNode {
    NewNode { kind, perm: 0o755, umask: 0, rdev: 0, target: Bytes::new() }
}

/// Bytes that do not compress and that `seed` tells apart.
pub fn noise(seed: u64, len: usize) -> Bytes {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out.into()
}

impl Bed {
    pub fn new() -> Self {
        Self {
            meta: Arc::new(InMemory::new()),
            data: Arc::new(InMemory::new()),
            shared: Shared::new(Config::default()),
            inos: BTreeMap::new(),
        }
    }

    pub fn prefix() -> Path {
        Path::from("homes/alice")
    }

    pub async fn open(&self) -> Home {
        let open = OpenHome {
            name: "alice".into(),
            data: Arc::clone(&self.data),
            meta: Arc::clone(&self.meta),
            prefix: Self::prefix(),
            quota: Quota::NONE,
            root_uid: 1000,
            root_gid: 1000,
            root_perm: 0o700,
            shared: Arc::clone(&self.shared),
            tenure: Arc::new(Undisputed),
            seed: Some(1),
        };
        Home::open(open).await.expect("opens")
    }

    /// The home that most tests damage:
    /// `docs/{a.txt,hard,big.bin,many,clone}`, `sub/deep/x`, an attribute, a small value.
    pub async fn build() -> Self {
        let mut bed = Self::new();
        let home = bed.open().await;
        let me = Caller { uid: 1000, gid: 1000, client: home.attach() };
        for (path, above, kind) in [
            ("docs", "", Kind::Dir),
            ("sub", "", Kind::Dir),
            ("deep", "sub", Kind::Dir),
            ("a.txt", "docs", Kind::File),
            ("big.bin", "docs", Kind::File),
            ("many", "docs", Kind::File),
            ("clone", "docs", Kind::File),
            ("x", "deep", Kind::File),
            ("log", "", Kind::File),
        ] {
            let above = bed.inos.get(above).copied().unwrap_or(Ino::ROOT);
            let made = home.make(me.clone(), above, name(path), node(kind)).await.expect("makes");
            bed.inos.insert(path.into(), made.ino);
        }
        let ino = |path: &str| bed.inos[path];
        let mode = WriteMode::default();
        for (path, at, len) in [("a.txt", 0, 10), ("big.bin", 0, 700_000), ("x", 5, 3000)] {
            home.write(me.clone(), ino(path), at, noise(at + len as u64, len), mode)
                .await
                .expect("writes");
        }
        for at in 0..9 {
            home.write(me.clone(), ino("many"), at << 20, noise(at, 5000), mode)
                .await
                .expect("writes");
        }
        home.link(me.clone(), ino("a.txt"), ino("docs"), name("hard")).await.expect("links");
        home.sync().await.expect("syncs");
        let to = (ino("clone"), 0);
        home.copy_range(me.clone(), (ino("big.bin"), 1000), to, 300_000).await.expect("clones");
        home.setxattr(
            me.clone(),
            ino("x"),
            Bytes::from_static(b"user.k"),
            noise(1, 100),
            XattrMode::default(),
        )
        .await
        .expect("sets");
        home.write(me.clone(), ino("log"), 0, noise(77, 500), mode).await.expect("writes");
        home.fsync(ino("log")).await.expect("syncs");
        home.close().await.expect("closes");
        bed
    }

    pub fn ino(&self, name: &str) -> Ino {
        self.inos[name]
    }

    pub async fn check(&self, verify_data: bool) -> Report {
        let options = Options { verify_data, in_use: false };
        check_closed(&self.meta, &self.data, &Self::prefix(), options, &mut |_| {})
            .await
            .expect("checks")
    }

    pub async fn repair(&self) -> Repaired {
        let (prefix, options) = (Self::prefix(), Options::default());
        repair(&self.meta, &self.data, &prefix, &self.shared, options, &mut |_| {})
            .await
            .expect("repairs")
    }

    pub async fn edit(&self) -> Edit {
        let options = TableOptions::default();
        let table =
            Table::open(Arc::clone(&self.meta), "homes/alice/tables", &self.shared.tables, options)
                .await
                .expect("opens");
        Edit { table, batch: Batch::default() }
    }

    /// Paths of the objects of segments.
    pub async fn objects(&self) -> Vec<Path> {
        use futures::TryStreamExt;
        let prefix = Path::from("homes/alice/segments");
        let listed: Vec<_> = self.data.list(Some(&prefix)).try_collect().await.expect("lists");
        listed.into_iter().map(|meta| meta.location).collect()
    }

    /// Replaces the bytes of an object.
    pub async fn overwrite(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let got = self.data.get(path).await.expect("gets").bytes().await.expect("reads");
        let mut bytes = got.to_vec();
        change(&mut bytes);
        self.data.put(path, bytes.into()).await.expect("puts");
    }
}

/// Changes of records, around all rules.
pub struct Edit {
    table: Table,
    batch: Batch,
}

impl Edit {
    pub async fn get(&self, key: &Key) -> Option<Bytes> {
        self.table.get(key).await.expect("reads")
    }

    pub fn put(&mut self, key: &[u8], value: Vec<u8>) {
        self.batch.put(Bytes::copy_from_slice(key), value.into());
    }

    pub fn delete(&mut self, key: &[u8]) {
        self.batch.delete(Bytes::copy_from_slice(key));
    }

    pub async fn rows(&self, kind: u8) -> Vec<(Bytes, Bytes)> {
        self.table.scan(key::range_of_kind(kind), usize::MAX).await.expect("scans")
    }

    pub async fn inode(&mut self, ino: Ino, change: impl FnOnce(&mut InodeRecord)) {
        let value = self.get(&key::inode(ino)).await.expect("there");
        let mut record = InodeRecord::decode(ino, &value).expect("decodes");
        change(&mut record);
        self.put(&key::inode(ino), record.encode());
    }

    pub async fn bucket(&mut self, dir: Ino, of: &str, change: impl FnOnce(&mut Bucket)) {
        let key = key::bucket(dir, key::name_hash(of.as_bytes()));
        let value = self.get(&key).await;
        let mut bucket = value.map_or_else(Bucket::new, |v| decode_bucket(&v).expect("decodes"));
        change(&mut bucket);
        self.put(&key, encode_bucket(&bucket));
    }

    /// The first chunk record that `wanted` takes.
    pub async fn chunk(&self, wanted: impl Fn(&ChunkRecord) -> bool) -> (ChunkId, ChunkRecord) {
        let rows = self.rows(key::CHUNK).await;
        rows.iter()
            .map(|(k, v)| (key::chunk_of(k).expect("key"), ChunkRecord::decode(v).expect("value")))
            .find(|(_, record)| wanted(record))
            .expect("a chunk like this")
    }

    pub async fn done(self) {
        self.table.write(self.table.last_txn() + 1, self.batch).await.expect("writes");
        self.table.flush().await.expect("flushes");
        self.table.close().await.expect("closes");
    }
}

/// The paths that findings of `kind` name; fails where there are none of that kind.
pub fn paths(report: &Report, kind: Invariant) -> Vec<String> {
    let found: Vec<_> = report.findings.iter().filter(|f| f.kind == kind).collect();
    assert!(!found.is_empty(), "no {kind:?} in:\n{report}");
    found.into_iter().flat_map(|f| f.paths.clone()).collect()
}

/// The record of the segment that a path names.
pub fn segment_of(path: &Path) -> SegmentId {
    SegmentId::parse(path.filename().expect("a name")).expect("a segment")
}
