//! Manifests, tags, referrers, deleting.

use yadokari_catalog::{
    Algorithm, CatalogError, Hasher, ManifestLinks, NewManifest, Reference, What,
};

use super::*;

#[tokio::test]
async fn an_image_is_pulled_as_it_was_pushed_through_another_instance() {
    let world = world();
    let (one, two) = two(&world);
    let app = repo("alice/app");
    let layer = one.push(&app, &bytes(200_000, 1), 30_000).await.expect("pushed");
    let config = one.push(&app, &bytes(100, 2), 100).await.expect("pushed");
    let links = ManifestLinks { config: Some(config), layers: vec![layer], ..Default::default() };
    let new = manifest("{}", links, &["v1", "latest"]);
    let stored = one.catalog.put_manifest(&app, new.clone()).await.expect("stored");
    assert!(stored.created);
    assert_eq!(stored.tags, [tag("v1"), tag("latest")]);
    for reference in [Reference::Tag(tag("v1")), Reference::Digest(new.digest)] {
        let found = two.catalog.manifest(&app, &reference).await.expect("a manifest");
        assert_eq!((found.bytes, found.info.digest), (new.bytes.clone(), new.digest));
        assert_eq!(&*found.info.media_type, new.media_type);
    }
    assert_eq!(two.pull(&app, &layer).await.expect("a layer"), bytes(200_000, 1));
    let again = two.catalog.put_manifest(&app, new).await.expect("stored");
    assert!(!again.created && again.tags.is_empty());
    assert_sound(&world).await;
}

#[tokio::test]
async fn a_manifest_needs_its_blobs_in_that_repository_unless_it_is_sparse() {
    let world = world();
    let one = world.instance(1);
    let (app, other) = (repo("alice/app"), repo("alice/other"));
    let layer = one.push(&other, &bytes(10, 1), 10).await.expect("pushed");
    let missing = sha256(b"missing");
    let links = ManifestLinks {
        config: Some(missing),
        layers: vec![layer],
        children: vec![sha256(b"child")],
        subject: Some(sha256(b"subject")),
        ..Default::default()
    };
    let new = manifest("{}", links, &["v1"]);
    let refused = one.catalog.put_manifest(&app, new.clone()).await.expect_err("refused");
    match refused {
        CatalogError::BlobsMissing { missing: found, .. } => {
            assert_eq!(found.len(), 2);
            assert!(found.contains(&missing) && found.contains(&layer));
        }
        other => panic!("{other}"),
    }
    let usage = one.catalog.usage(&owner("alice")).await.expect("usage");
    assert_eq!(usage.used, 10, "what is refused is not charged");
    one.catalog.put_manifest(&app, NewManifest { sparse: true, ..new }).await.expect("stored");
    one.catalog.tags(&app, None, 10).await.expect("tags");
}

#[tokio::test]
async fn a_manifest_whose_digest_is_another_is_refused() {
    let world = world();
    let new = NewManifest { digest: sha256(b"other"), ..manifest("{}", Default::default(), &[]) };
    let refused = world.instance(1).catalog.put_manifest(&repo("a/b"), new).await;
    assert!(matches!(refused, Err(CatalogError::DigestMismatch { .. })));
}

#[tokio::test]
async fn a_long_manifest_and_one_by_sha512_are_stored_too() {
    let world = world();
    let one = world.instance(1);
    let app = repo("alice/app");
    let text = "x".repeat(300_000);
    let long = manifest(&text, Default::default(), &["long"]);
    one.catalog.put_manifest(&app, long.clone()).await.expect("stored");
    let digest = Hasher::digest(Algorithm::Sha512, b"{}");
    let other = NewManifest { digest, ..manifest("{}", Default::default(), &["other"]) };
    one.catalog.put_manifest(&app, other).await.expect("stored");
    let fresh = world.instance(2).catalog;
    let found = fresh.manifest(&app, &Reference::Tag(tag("long"))).await.expect("found");
    assert_eq!(found.bytes, long.bytes);
    let found = fresh.manifest(&app, &Reference::Digest(digest)).await.expect("found");
    assert_eq!(found.bytes, "{}");
    assert_sound(&world).await;
}

#[tokio::test]
async fn tags_move_are_paged_in_byte_order_and_go() {
    let world = world();
    let one = world.instance(1);
    let app = repo("alice/app");
    let names = ["b", "B", "a", "_x", "10", "9"];
    one.catalog.put_manifest(&app, manifest("1", Default::default(), &names)).await.expect("put");
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = one.catalog.tags(&app, after.as_deref(), 2).await.expect("a page");
        found.extend(page.items.iter().map(|tag| tag.as_str().to_owned()));
        after = found.last().cloned();
        if !page.more {
            break;
        }
    }
    assert_eq!(found, ["10", "9", "B", "_x", "a", "b"]);
    let second = manifest("2", Default::default(), &["a"]);
    one.catalog.put_manifest(&app, second.clone()).await.expect("put");
    let moved = one.catalog.manifest_info(&app, &Reference::Tag(tag("a"))).await.expect("found");
    assert_eq!(moved.digest, second.digest);
    one.catalog.delete_tag(&app, &tag("a")).await.expect("deleted");
    let gone = one.catalog.delete_tag(&app, &tag("a")).await.expect_err("gone");
    assert!(matches!(gone, CatalogError::NotFound { what: What::Tag, .. }));
    let gone = one.catalog.manifest(&app, &Reference::Tag(tag("a"))).await.expect_err("gone");
    assert!(matches!(gone, CatalogError::NotFound { what: What::Manifest, .. }));
    one.catalog.tag(&app, &tag("a"), &second.digest).await.expect("tagged again");
    let nowhere = one.catalog.tags(&repo("alice/no"), None, 10).await.expect_err("nothing there");
    assert!(matches!(nowhere, CatalogError::NotFound { what: What::Repository, .. }));
}

#[tokio::test]
async fn what_something_uses_is_not_deleted() {
    let world = world();
    let one = world.instance(1);
    let app = repo("alice/app");
    let layer = one.push(&app, &bytes(10, 1), 10).await.expect("pushed");
    let links = ManifestLinks { layers: vec![layer], ..Default::default() };
    let image = manifest("image", links, &[]);
    one.catalog.put_manifest(&app, image.clone()).await.expect("put");
    let links = ManifestLinks { children: vec![image.digest], ..Default::default() };
    let index = manifest("index", links, &["v1"]);
    one.catalog.put_manifest(&app, index.clone()).await.expect("put");
    let refused = one.catalog.delete_blob(&app, &layer).await.expect_err("used");
    assert!(matches!(refused, CatalogError::InUse { by, .. } if *by == image.digest));
    let refused = one.catalog.delete_manifest(&app, &image.digest).await.expect_err("named");
    assert!(matches!(refused, CatalogError::InUse { by, .. } if *by == index.digest));
    let tags = one.catalog.delete_manifest(&app, &index.digest).await.expect("deleted");
    assert_eq!(tags, [tag("v1")]);
    one.catalog.delete_manifest(&app, &image.digest).await.expect("deleted");
    one.catalog.delete_blob(&app, &layer).await.expect("deleted");
    let usage = one.catalog.usage(&owner("alice")).await.expect("usage");
    assert_eq!((usage.used, usage.blobs), (0, 0));
    assert_sound(&world).await;
}

#[tokio::test]
async fn referrers_are_listed_with_type_and_annotations_whether_the_subject_is_there_or_not() {
    let world = world();
    let one = world.instance(1);
    let app = repo("alice/app");
    let subject = sha256(b"subject");
    for (text, kind) in [("1", "sbom"), ("2", "signature")] {
        let links = ManifestLinks {
            subject: Some(subject),
            artifact_type: Some(kind.to_owned()),
            annotations: [("key".to_owned(), text.to_owned())].into(),
            ..Default::default()
        };
        one.catalog.put_manifest(&app, manifest(text, links, &[])).await.expect("put");
    }
    let fresh = world.instance(2).catalog;
    assert_eq!(fresh.referrers(&app, &subject, None).await.expect("a list").len(), 2);
    let sboms = fresh.referrers(&app, &subject, Some("sbom")).await.expect("a list");
    assert_eq!(sboms.len(), 1);
    assert_eq!(sboms[0].annotations["key"], "1");
    assert!(fresh.referrers(&app, &sha256(b"x"), None).await.expect("a list").is_empty());
}

#[tokio::test]
async fn thousands_of_tags_go_through_snapshots_and_other_instances_follow() {
    let world = world();
    let (one, two) = two(&world);
    let app = repo("alice/app");
    one.catalog.put_manifest(&app, manifest("1", Default::default(), &["t"])).await.expect("put");
    let digest = sha256(b"1");
    for n in 0..1500 {
        one.catalog.tag(&app, &tag(&format!("tag-{n:05}")), &digest).await.expect("tagged");
        if n % 400 == 7 {
            let page = two.catalog.tags(&app, None, 10_000).await.expect("a page");
            assert_eq!(page.items.len(), n + 2);
        }
    }
    let fresh = world.instance(3).catalog;
    let page = fresh.tags(&app, Some("tag-01000"), 10_000).await.expect("a page");
    assert_eq!(page.items.len(), 499);
    assert_sound(&world).await;
}

#[tokio::test]
async fn tags_that_are_pushed_at_the_same_time_all_come_to_be() {
    let world = world();
    let (one, two) = two(&world);
    let app = repo("alice/app");
    one.catalog.put_manifest(&app, manifest("1", Default::default(), &["t"])).await.expect("put");
    let digest = sha256(b"1");
    let mut pushes = tokio::task::JoinSet::new();
    for n in 0..100 {
        let instance = if n % 2 == 0 { one.clone() } else { two.clone() };
        let (app, tag) = (app.clone(), tag(&format!("t{n}")));
        pushes.spawn(async move { instance.catalog.tag(&app, &tag, &digest).await });
    }
    pushes.join_all().await.into_iter().for_each(|done| done.expect("tagged"));
    assert_eq!(one.catalog.tags(&app, None, 1000).await.expect("a page").items.len(), 101);
}
