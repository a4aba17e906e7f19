//! What OCI's conformance suites check (v1.1.1 and the newer main), request by request, on two
//! gateways over one store: what one takes the other serves.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use yadokari_tests::gateway::{Options, Registry};
use yadokari_tests::image::{Blob, Client, INDEX, manifest, with_query};
use yadokari_tests::on_every_store;
use yadokari_tests::stores::StoreKind;

const REPO: &str = "ada/app";

on_every_store! {
    a_blob_is_pushed_in_every_way_and_served_by_the_other_gateway => blobs;
    what_is_not_what_its_digest_says_is_refused_in_every_way => bad_digests;
    chunks_in_the_wrong_order_are_refused_and_the_upload_goes_on => out_of_order;
    a_range_of_a_blob_is_served_as_http_has_it => ranges;
    a_blob_is_mounted_from_where_the_caller_may_read => mounts;
    manifests_are_served_as_they_came_by_tag_and_by_digest => manifests;
    a_manifest_must_be_whole_unless_sparse_ones_are_allowed => wholeness;
    tags_and_repositories_come_in_pages => pages;
    referrers_are_listed_and_filtered => referrers;
    what_is_deleted_is_gone_and_what_is_used_stays => deletes;
    sha512_is_a_digest_like_any_other => sha512;
    several_tags_are_pushed_at_once => tag_parameters;
}

/// Both gateways as ada sees them.
fn start(kind: StoreKind) -> Result<(Registry, Client, Client)> {
    start_with(kind, Options::default())
}

fn start_with(kind: StoreKind, options: Options) -> Result<(Registry, Client, Client)> {
    let registry = Registry::start_with(kind, options)?;
    let one = Client::new(registry.one(), "ada");
    let two = Client::new(registry.two(), "ada");
    Ok((registry, one, two))
}

/// What one gateway knows of the other's changes is at most a second old.
fn settle() {
    std::thread::sleep(std::time::Duration::from_secs(1));
}

fn is_served(client: &Client, blob: &Blob, digest: &str) -> Result<()> {
    let path = format!("{REPO}/blobs/{digest}");
    let head = client.head(&path)?.is(200)?;
    ensure!(head.needs("Content-Length")? == blob.bytes.len().to_string());
    ensure!(head.needs("Docker-Content-Digest")? == digest);
    let whole = client.get(&path)?.is(200)?;
    ensure!(whole.body == blob.bytes, "{digest} came back as something else");
    ensure!(whole.needs("Docker-Content-Digest")? == digest);
    let request = client.request("GET", &path).header("If-None-Match", format!("\"{digest}\""));
    let again = client.send(&request)?.is(304)?;
    ensure!(again.body.is_empty());
    Ok(())
}

fn blobs(kind: StoreKind) -> Result<()> {
    let (registry, one, two) = start(kind)?;
    for (n, len) in [0, 1, 2, 700, 65_536, 65_537, 3_000_000].into_iter().enumerate() {
        let blob = |way: u64| match len {
            0 => Blob::new(""),
            _ => Blob::random(len, n as u64 * 10 + way),
        };
        let b = blob(1);
        let target = format!("{REPO}/blobs/uploads/?digest={}", b.digest);
        let stored = one.send(&one.request("POST", &target).body(b.bytes.clone()))?.is(201)?;
        ensure!(stored.needs("Location")? == format!("/v2/{REPO}/blobs/{}", b.digest));
        is_served(&two, &b, &b.digest)?;

        let b = blob(2);
        let location = one.begin(REPO)?;
        ensure!(location.starts_with(&format!("/v2/{REPO}/blobs/uploads/")), "{location}");
        let target = with_query(&location, &format!("digest={}", b.digest));
        two.send(&two.request("PUT", &target).body(b.bytes.clone()))?.is(201)?;
        is_served(&one, &b, &b.digest)?;

        // Streamed: no length, no range.
        let b = blob(3);
        let location = one.begin(REPO)?;
        let patch = one.request("PATCH", &location).body(b.bytes.clone()).chunked();
        let patched = one.send(&patch)?.is(202)?;
        ensure!(patched.needs("Range")? == format!("0-{}", len.saturating_sub(1)));
        let target = with_query(patched.needs("Location")?, &format!("digest={}", b.digest));
        one.send(&one.request("PUT", &target))?.is(201)?;
        is_served(&two, &b, &b.digest)?;

        // In chunks, one to each gateway, the last with the PUT.
        let b = blob(4);
        let mut location = one.begin(REPO)?;
        let step = len.div_ceil(3).max(1);
        let chunks: Vec<&[u8]> = b.bytes.chunks(step).collect();
        for (at, chunk) in chunks.iter().enumerate() {
            let client = if at % 2 == 0 { &two } else { &one };
            let first = at * step;
            let range = format!("{first}-{}", first + chunk.len() - 1);
            let last = at + 1 == chunks.len();
            let (method, target) = if last {
                ("PUT", with_query(&location, &format!("digest={}", b.digest)))
            } else {
                ("PATCH", location.clone())
            };
            let request = client.request(method, &target).header("Content-Range", range);
            let answer = client.send(&request.body(chunk.to_vec()))?;
            if last {
                answer.is(201)?;
            } else {
                let answer = answer.is(202)?;
                ensure!(answer.needs("Range")? == format!("0-{}", first + chunk.len() - 1));
                location = answer.needs("Location")?.to_owned();
            }
        }
        if !chunks.is_empty() {
            is_served(&one, &b, &b.digest)?;
        }
    }
    let location = one.begin(REPO)?;
    let status = two.get(&location)?.is(204)?;
    ensure!(status.needs("Range")? == "0-0" && status.needs("Location")? == location);
    two.delete(&location)?.is(204)?;
    ensure!(one.get(&location)?.is(404)?.code() == "BLOB_UPLOAD_UNKNOWN");
    let missing = Blob::new("never pushed").digest;
    let answer = one.get(&format!("{REPO}/blobs/{missing}"))?.is(404)?;
    ensure!(answer.code() == "BLOB_UNKNOWN");
    registry.is_consistent()
}

fn bad_digests(kind: StoreKind) -> Result<()> {
    let (registry, one, _two) = start(kind)?;
    for len in [100, 200_000] {
        let (said, sent) = (Blob::random(len, 1), Blob::random(len, 2));
        let refused = |answer: yadokari_tests::http::Answer| -> Result<()> {
            let answer = answer.is(400)?;
            ensure!(answer.code() == "DIGEST_INVALID", "{}", answer.text());
            Ok(())
        };
        let target = format!("{REPO}/blobs/uploads/?digest={}", said.digest);
        refused(one.send(&one.request("POST", &target).body(sent.bytes.clone()))?)?;
        let target = with_query(&one.begin(REPO)?, &format!("digest={}", said.digest));
        refused(one.send(&one.request("PUT", &target).body(sent.bytes.clone()))?)?;
        let location = one.begin(REPO)?;
        one.send(&one.request("PATCH", &location).body(sent.bytes.clone()))?.is(202)?;
        let target = with_query(&location, &format!("digest={}", said.digest));
        refused(one.send(&one.request("PUT", &target))?)?;
        for digest in [&said.digest, &sent.digest] {
            one.head(&format!("{REPO}/blobs/{digest}"))?.is(404)?;
        }
        for digest in ["sha256:short", "md5:d41d8cd98f00b204e9800998ecf8427e", "nonsense", ""] {
            let target = with_query(&one.begin(REPO)?, &format!("digest={digest}"));
            refused(one.send(&one.request("PUT", &target).body(sent.bytes.clone()))?)?;
        }
    }
    let target = format!("{REPO}/blobs/uploads/?digest-algorithm=md5");
    one.send(&one.request("POST", &target))?.is(400)?;
    registry.is_consistent()
}

fn out_of_order(kind: StoreKind) -> Result<()> {
    let (registry, one, two) = start(kind)?;
    let blob = Blob::random(900_000, 1);
    let location = one.begin(REPO)?;
    let send = |client: &Client, range: std::ops::Range<usize>| {
        let request = client.request("PATCH", &location);
        let header = format!("{}-{}", range.start, range.end - 1);
        client.send(&request.header("Content-Range", header).body(blob.bytes[range].to_vec()))
    };
    let early = send(&one, 300_000..600_000)?.is(416)?;
    ensure!(early.needs("Location")? == location && early.needs("Range")? == "0-0");
    send(&one, 0..300_000)?.is(202)?;
    let again = send(&two, 0..300_000)?.is(416)?;
    ensure!(again.needs("Range")? == "0-299999");
    ensure!(two.get(&location)?.is(204)?.needs("Range")? == "0-299999");
    send(&two, 300_000..600_000)?.is(202)?;
    let target = with_query(&location, &format!("digest={}", blob.digest));
    let last = one.request("PUT", &target).header("Content-Range", "0-299999");
    one.send(&last.body(blob.bytes[600_000..].to_vec()))?.is(416)?;
    let last = one.request("PUT", &target).header("Content-Range", "600000-899999");
    one.send(&last.body(blob.bytes[600_000..].to_vec()))?.is(201)?;
    is_served(&two, &blob, &blob.digest)?;
    let begun = one.begin(REPO)?;
    for wrong in ["5", "a-b", "9-5"] {
        let request = one.request("PATCH", &begun).header("Content-Range", wrong);
        one.send(&request.body("abc"))?.is(400)?;
    }
    let request = one.request("PATCH", &begun).header("Content-Range", "0-9");
    ensure!(one.send(&request.body("abc"))?.is(400)?.code() == "SIZE_INVALID");
    registry.is_consistent()
}

fn ranges(kind: StoreKind) -> Result<()> {
    let (_registry, one, two) = start(kind)?;
    for len in [2048usize, 2_500_000] {
        let blob = Blob::random(len, len as u64);
        one.push_blob(REPO, &blob)?;
        let path = format!("{REPO}/blobs/{}", blob.digest);
        for (range, part) in [
            ("bytes=500-1499".to_owned(), 500..1500),
            ("bytes=500-".to_owned(), 500..len),
            ("bytes=-500".to_owned(), len - 500..len),
            (format!("bytes=2000-{}", len + 5000), 2000..len),
            ("bytes=0-0".to_owned(), 0..1),
        ] {
            let request = two.request("GET", &path).header("Range", range.clone());
            let answer = two.send(&request)?.is(206)?;
            ensure!(answer.body == blob.bytes[part.clone()], "{range} of {len}");
            let expected = format!("bytes {}-{}/{len}", part.start, part.end - 1);
            ensure!(answer.needs("Content-Range")? == expected, "{range}");
        }
        for range in ["bytes=500-0".to_owned(), format!("bytes={len}-")] {
            let answer = two.send(&two.request("GET", &path).header("Range", range))?.is(416)?;
            ensure!(answer.needs("Content-Range")? == format!("bytes */{len}"));
        }
        let other = two.request("GET", &path).header("Range", "bytes=0-9");
        let other = two.send(&other.header("If-Range", "\"sha256:other\""))?.is(200)?;
        ensure!(other.body.len() == len);
    }
    Ok(())
}

fn mounts(kind: StoreKind) -> Result<()> {
    let (registry, one, two) = start(kind)?;
    let bob = Client::new(registry.one(), "bob");
    let (mine, his) = (Blob::random(80_000, 1), Blob::random(80_000, 2));
    one.push_blob("ada/source", &mine)?;
    bob.push_blob("bob/source", &his)?;
    let mount = |client: &Client, digest: &str, from: &str| {
        let target = format!("{REPO}/blobs/uploads/?mount={digest}{from}");
        client.send(&client.request("POST", &target))
    };
    let mounted = mount(&two, &mine.digest, "&from=ada/source")?.is(201)?;
    ensure!(mounted.needs("Location")? == format!("/v2/{REPO}/blobs/{}", mine.digest));
    is_served(&one, &mine, &mine.digest)?;
    one.delete(&format!("{REPO}/blobs/{}", mine.digest))?.is(202)?;
    one.head(&format!("{REPO}/blobs/{}", mine.digest))?.is(404)?;
    // Without a source it is found among what the caller may read.
    mount(&one, &mine.digest, "")?.is(201)?;
    is_served(&two, &mine, &mine.digest)?;
    // What is hidden and what is nowhere begin an upload alike.
    for (digest, from) in [
        (&his.digest, "&from=bob/source"),
        (&his.digest, ""),
        (&Blob::new("nowhere").digest, "&from=ada/source"),
        (&Blob::new("nowhere").digest, "&from=bob/nothing"),
        (&Blob::new("nowhere").digest, "&from=../x"),
        (&Blob::new("nowhere").digest, ""),
    ] {
        let begun = mount(&one, digest, from)?.is(202)?;
        ensure!(begun.needs("Location")?.contains("/blobs/uploads/"), "{from}");
    }
    registry.is_consistent()
}

fn manifests(kind: StoreKind) -> Result<()> {
    let (registry, one, two) = start(kind)?;
    let pushed = one.push_image(REPO, "v1", 2, 1)?;
    for reference in ["v1", &pushed.digest] {
        let path = format!("{REPO}/manifests/{reference}");
        let head = two.head(&path)?.is(200)?;
        ensure!(head.needs("Content-Length")? == pushed.bytes.len().to_string());
        let got = two.get(&path)?.is(200)?;
        ensure!(got.body == pushed.bytes);
        for answer in [head, got] {
            ensure!(answer.needs("Docker-Content-Digest")? == pushed.digest);
            ensure!(answer.needs("Content-Type")? == yadokari_tests::image::IMAGE);
        }
        let known = two.request("GET", &path);
        let known = known.header("If-None-Match", format!("\"{}\"", pushed.digest));
        two.send(&known)?.is(304)?;
    }
    one.pull_image(REPO, "v1")?;
    for missing in ["nothing", ".INVALID_MANIFEST_NAME", &Blob::new("x").digest] {
        let answer = one.get(&format!("{REPO}/manifests/{missing}"))?.is(404)?;
        ensure!(answer.code() == "MANIFEST_UNKNOWN", "{missing}");
    }
    one.get(&format!("{REPO}/manifests/sha256:baddigeststring"))?.is(400)?;
    // A push that is not what it says.
    let put = |reference: &str, body: &[u8]| {
        let request = one.request("PUT", &format!("{REPO}/manifests/{reference}"));
        let request = request.header("Content-Type", yadokari_tests::image::IMAGE);
        one.send(&request.body(body))
    };
    ensure!(put("bad", b"blablabla")?.is(400)?.code() == "MANIFEST_INVALID");
    ensure!(put("sha256:baddigeststring", &pushed.bytes)?.is(400)?.code() == "DIGEST_INVALID");
    let padded = [&pushed.bytes[..], b"  "].concat();
    ensure!(put(&pushed.digest, &padded)?.is(400)?.code() == "DIGEST_INVALID");
    put(".bad", &pushed.bytes)?.is(400)?;
    put("big", &vec![b' '; (4 << 20) + 1])?.is(413)?;
    // Nearly four MiB of annotations are a manifest like any other.
    let mut large: Value = serde_json::from_slice(&pushed.bytes)?;
    let notes = (0..390).map(|n| (format!("note-{n}"), json!("A".repeat(10_000))));
    large["annotations"] = Value::Object(notes.collect());
    let answer = one.put_manifest(REPO, "large", &large)?.is(201)?;
    let digest = answer.needs("Docker-Content-Digest")?;
    ensure!(answer.needs("Location")? == format!("/v2/{REPO}/manifests/{digest}"));
    ensure!(two.get(&format!("{REPO}/manifests/large"))?.is(200)?.json()? == large);
    // A condition on what the tag was.
    let conditional = |condition: &str, value: &str| {
        let request = one.request("PUT", &format!("{REPO}/manifests/v1"));
        let request = request.header("Content-Type", yadokari_tests::image::IMAGE);
        one.send(&request.header(condition, value).body(pushed.bytes.clone()))
    };
    conditional("If-None-Match", "*")?.is(412)?;
    conditional("If-Match", "\"sha256:other\"")?.is(412)?;
    conditional("If-Match", &format!("\"{}\"", pushed.digest))?.is(201)?;
    registry.is_consistent()
}

fn wholeness(kind: StoreKind) -> Result<()> {
    let (config, layer) = (Blob::random(100, 1), Blob::random(100, 2));
    let image = manifest(&config, &[layer]);
    let child = Blob::new("not here");
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [child.descriptor(yadokari_tests::image::IMAGE)],
    });
    for sparse in [false, true] {
        let options = Options { sparse, ..Options::default() };
        let (registry, one, two) = start_with(kind, options)?;
        one.push_blob(REPO, &config)?;
        let answer = one.put_manifest(REPO, "image", &image)?;
        if sparse {
            answer.is(201)?;
            two.get(&format!("{REPO}/manifests/image"))?.is(200)?;
        } else {
            ensure!(answer.is(404)?.code() == "MANIFEST_BLOB_UNKNOWN");
            two.get(&format!("{REPO}/manifests/image"))?.is(404)?;
        }
        // Children of an index may always come later.
        one.put_manifest(REPO, "index", &index)?.is(201)?;
        // Layers that lie elsewhere always may.
        let mut elsewhere = image.clone();
        elsewhere["layers"][0]["urls"] = json!(["https://store.example.com/x"]);
        one.put_manifest(REPO, "elsewhere", &elsewhere)?.is(201)?;
        registry.is_consistent()?;
    }
    Ok(())
}

fn pages(kind: StoreKind) -> Result<()> {
    let (registry, one, two) = start(kind)?;
    let image = one.push_image(REPO, "t0", 0, 1)?;
    let value: Value = serde_json::from_slice(&image.bytes)?;
    for tag in ["t10", "t2", "T9", "_x", "latest"] {
        one.put_manifest(REPO, tag, &value)?.is(201)?;
    }
    settle();
    let all = ["T9", "_x", "latest", "t0", "t10", "t2"];
    ensure!(two.tags(REPO)? == all);
    let mut path = format!("/v2/{REPO}/tags/list?n=2");
    let mut seen: Vec<String> = Vec::new();
    loop {
        let answer = two.get(&path)?.is(200)?;
        let tags: Vec<String> = serde_json::from_value(answer.json()?["tags"].clone())?;
        ensure!(tags.len() <= 2);
        seen.extend(tags);
        let Some(link) = answer.header("Link") else { break };
        ensure!(link.ends_with(">; rel=\"next\""), "{link}");
        path = link.trim_start_matches('<').split('>').next().context("a link")?.to_owned();
    }
    ensure!(seen == all, "{seen:?}");
    let list = |query: &str| two.get(&format!("{REPO}/tags/list?{query}"));
    let none = list("n=0")?.is(200)?;
    ensure!(none.json()?["tags"] == json!([]) && none.header("Link").is_none());
    ensure!(list("last=latest")?.is(200)?.json()?["tags"] == json!(["t0", "t10", "t2"]));
    ensure!(list("n=100")?.is(200)?.header("Link").is_none());
    list("n=-1")?.is(400)?;
    list("n=x")?.is(400)?;
    two.get("ada/nothing/tags/list")?.is(404)?;
    // Repositories: each sees their own.
    for repo in ["ada/b", "ada/a"] {
        one.push_image(repo, "v", 0, 2)?;
    }
    Client::new(registry.one(), "bob").push_image("bob/x", "v", 0, 3)?;
    settle();
    let catalog = |client: &Client, query: &str| -> Result<Value> {
        Ok(client.get(&format!("_catalog{query}"))?.is(200)?.json()?["repositories"].clone())
    };
    ensure!(catalog(&two, "")? == json!(["ada/a", "ada/app", "ada/b"]));
    ensure!(catalog(&two, "?n=1&last=ada/a")? == json!(["ada/app"]));
    let boss = Client::new(registry.two(), "boss");
    ensure!(catalog(&boss, "")? == json!(["ada/a", "ada/app", "ada/b", "bob/x"]));
    ensure!(catalog(&Client::anonymous(registry.one()), "")? == json!([]));
    Ok(())
}

fn referrers(kind: StoreKind) -> Result<()> {
    let (registry, one, two) = start(kind)?;
    let nobody = Blob::new("nobody");
    let list = |subject: &Blob, query: &str| -> Result<(Value, bool)> {
        settle();
        let answer = two.get(&format!("{REPO}/referrers/{}{query}", subject.digest))?.is(200)?;
        ensure!(answer.needs("Content-Type")? == INDEX);
        let applied = answer.header("OCI-Filters-Applied") == Some("artifactType");
        let index = answer.json()?;
        ensure!(index["schemaVersion"] == 2 && index["mediaType"] == INDEX);
        Ok((index["manifests"].clone(), applied))
    };
    ensure!(list(&nobody, "")? == (json!([]), false), "an empty repository");
    let image = one.push_image(REPO, "v1", 1, 1)?;
    let empty = Blob::new("{}");
    one.push_blob(REPO, &empty)?;
    let about = |subject: &Blob, kind: Option<&str>, note: &str| {
        let mut artifact = manifest(&empty, &[]);
        artifact["subject"] = subject.descriptor(yadokari_tests::image::IMAGE);
        artifact["annotations"] = json!({"note": note});
        if let Some(kind) = kind {
            artifact["artifactType"] = kind.into();
        }
        artifact
    };
    let mut digests = Vec::new();
    for (kind, note) in [(Some("a/sbom"), "1"), (Some("a/signature"), "2"), (None, "3")] {
        let artifact = about(&image, kind, note);
        let blob = Blob::new(artifact.to_string());
        let answer = one.put_manifest(REPO, &blob.digest, &artifact)?.is(201)?;
        ensure!(answer.needs("OCI-Subject")? == image.digest);
        digests.push(blob.digest);
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [],
        "subject": image.descriptor(yadokari_tests::image::IMAGE),
    });
    one.put_manifest(REPO, "index", &index)?.is(201)?;
    let (all, applied) = list(&image, "")?;
    let all = all.as_array().context("a list")?;
    ensure!(all.len() == 4 && !applied, "{all:?}");
    let find = |digest: &str| all.iter().find(|d| d["digest"] == digest).context("is listed");
    ensure!(find(&digests[0])?["artifactType"] == "a/sbom");
    ensure!(find(&digests[0])?["annotations"]["note"] == "1");
    ensure!(find(&digests[2])?["artifactType"] == "application/vnd.oci.image.config.v1+json");
    let of_index = find(&Blob::new(index.to_string()).digest)?;
    ensure!(of_index.get("artifactType").is_none(), "{of_index}");
    let (sboms, applied) = list(&image, "?artifactType=a/sbom")?;
    ensure!(applied && sboms.as_array().map(Vec::len) == Some(1), "{sboms}");
    ensure!(list(&image, "?artifactType=a/none")? == (json!([]), true));
    // A subject may come later.
    let late = about(&nobody, Some("a/sbom"), "late");
    one.put_manifest(REPO, "late", &late)?.is(201)?.needs("OCI-Subject")?;
    ensure!(list(&nobody, "")?.0.as_array().map(Vec::len) == Some(1));
    one.get(&format!("{REPO}/referrers/sha256:bad"))?.is(400)?;
    // A list that a client keeps under the fallback tag is part of the answer.
    let other = one.push_image(REPO, "v2", 1, 7)?;
    let listed = one.push_image(REPO, "listed", 0, 8)?;
    let kept = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [listed.descriptor(yadokari_tests::image::IMAGE)],
    });
    one.put_manifest(REPO, &other.digest.replace(':', "-"), &kept)?.is(201)?;
    let (found, _) = list(&other, "")?;
    ensure!(found[0]["digest"] == listed.digest, "{found}");
    // Deleted referrers are listed no more.
    one.delete(&format!("{REPO}/manifests/{}", digests[0]))?.is(202)?;
    ensure!(list(&image, "")?.0.as_array().map(Vec::len) == Some(3));
    registry.is_consistent()
}

fn deletes(kind: StoreKind) -> Result<()> {
    let (registry, one, two) = start(kind)?;
    let image = one.push_image(REPO, "v1", 1, 1)?;
    let value: Value = serde_json::from_slice(&image.bytes)?;
    one.put_manifest(REPO, "v2", &value)?.is(201)?;
    let layer = value["layers"][0]["digest"].as_str().context("a digest")?.to_owned();
    two.delete(&format!("{REPO}/blobs/{layer}"))?.is(405)?;
    two.delete(&format!("{REPO}/manifests/v2"))?.is(202)?;
    two.head(&format!("{REPO}/manifests/v2"))?.is(404)?;
    one.delete(&format!("{REPO}/manifests/v2"))?.is(404)?;
    settle();
    one.head(&format!("{REPO}/manifests/v2"))?.is(404)?;
    ensure!(two.tags(REPO)? == ["v1"]);
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [image.descriptor(yadokari_tests::image::IMAGE)],
    });
    one.put_manifest(REPO, "index", &index)?.is(201)?;
    let path = format!("{REPO}/manifests/{}", image.digest);
    one.delete(&path)?.is(405)?;
    one.delete(&format!("{REPO}/manifests/{}", Blob::new(index.to_string()).digest))?.is(202)?;
    one.delete(&path)?.is(202)?;
    one.head(&path)?.is(404)?;
    settle();
    two.head(&path)?.is(404)?;
    two.head(&format!("{REPO}/manifests/v1"))?.is(404)?;
    two.delete(&format!("{REPO}/blobs/{layer}"))?.is(202)?;
    two.head(&format!("{REPO}/blobs/{layer}"))?.is(404)?;
    two.delete(&format!("{REPO}/blobs/{layer}"))?.is(404)?;
    registry.is_consistent()
}

fn sha512(kind: StoreKind) -> Result<()> {
    let (registry, one, two) = start(kind)?;
    for (n, announced) in [true, false].into_iter().enumerate() {
        for len in [1000, 400_000] {
            let blob = Blob::random(len, 10 + n as u64);
            let query = if announced { "?digest-algorithm=sha512" } else { "" };
            let post = one.request("POST", &format!("{REPO}/blobs/uploads/{query}"));
            let location = one.send(&post)?.is(202)?.needs("Location")?.to_owned();
            one.send(&one.request("PATCH", &location).body(blob.bytes.clone()))?.is(202)?;
            let target = with_query(&location, &format!("digest={}", blob.sha512()));
            two.send(&two.request("PUT", &target))?.is(201)?;
            is_served(&one, &blob, &blob.sha512())?;
        }
    }
    let config = Blob::random(300, 50);
    let target = format!("{REPO}/blobs/uploads/?digest={}", config.sha512());
    one.send(&one.request("POST", &target).body(config.bytes.clone()))?.is(201)?;
    let mut image = manifest(&config, &[]);
    image["config"]["digest"] = config.sha512().into();
    let blob = Blob::new(image.to_string());
    let answer = one.put_manifest(REPO, &blob.sha512(), &image)?.is(201)?;
    ensure!(answer.needs("Docker-Content-Digest")? == blob.sha512());
    ensure!(two.get(&format!("{REPO}/manifests/{}", blob.sha512()))?.is(200)?.body == blob.bytes);
    registry.is_consistent()
}

fn tag_parameters(kind: StoreKind) -> Result<()> {
    let (registry, one, two) = start(kind)?;
    let image = one.push_image(REPO, "first", 1, 1)?;
    let value: Value = serde_json::from_slice(&image.bytes)?;
    let tags: Vec<String> = (0..12).map(|n| format!("v1.{n}")).collect();
    let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
    let reference = format!("{}?{}", image.digest, query.join("&"));
    let answer = one.put_manifest(REPO, &reference, &value)?.is(201)?;
    ensure!(answer.needs("OCI-Tag")? == "v1.0");
    for tag in &tags {
        let head = two.head(&format!("{REPO}/manifests/{tag}"))?.is(200)?;
        ensure!(head.needs("Docker-Content-Digest")? == image.digest);
    }
    one.put_manifest(REPO, &format!("{}?tag=.bad", image.digest), &value)?.is(400)?;
    let query: Vec<String> = (0..120).map(|n| format!("tag=x{n}")).collect();
    let reference = format!("{}?{}", image.digest, query.join("&"));
    one.put_manifest(REPO, &reference, &value)?.is(414)?;
    registry.is_consistent()
}
