//! Two who meet at one repository, one of them stopped at each of its operations in turn.

use yadokari_catalog::integration::Instance;
use yadokari_catalog::{CatalogError, ManifestLinks, Reference};
use yadokari_store::fault::{Action, Fault};

use super::*;

#[derive(Clone, Copy, Debug)]
enum Side {
    /// Pushes a manifest that uses the blob.
    Push,
    /// Deletes the blob.
    Delete,
}

async fn act(side: Side, instance: Instance, digest: Digest) -> bool {
    let app = repo("alice/app");
    let done = match side {
        Side::Push => {
            let links = ManifestLinks { layers: vec![digest], ..Default::default() };
            instance.catalog.put_manifest(&app, manifest("image", links, &["v1"])).await.map(drop)
        }
        Side::Delete => instance.catalog.delete_blob(&app, &digest).await,
    };
    match done {
        Ok(()) => true,
        Err(CatalogError::BlobsMissing { .. } | CatalogError::InUse { .. }) => false,
        Err(error) => panic!("{side:?}: {error}"),
    }
}

/// Either the image is whole, or it was refused.
#[tokio::test]
async fn a_blob_is_deleted_or_used_never_both() {
    for (stopped, other) in [(Side::Push, Side::Delete), (Side::Delete, Side::Push)] {
        for at in 0.. {
            let world = world();
            let (one, two) = (world.instance(1), world.instance(2));
            let app = repo("alice/app");
            let digest = two.push(&app, &bytes(10, 1), 10).await.expect("pushed");
            one.faults.arm(Fault::new(Action::Hang).after(at).into());
            let first = tokio::spawn(act(stopped, one.clone(), digest));
            while !first.is_finished() && one.faults.hanging() == 0 {
                tokio::task::yield_now().await;
            }
            let did_stop = one.faults.hanging() > 0;
            let second = act(other, two.clone(), digest).await;
            one.faults.disarm();
            let first = first.await.expect("no panic");
            assert!(first != second, "{stopped:?} at {at}: {first} {second}");
            let there = two.pull(&app, &digest).await.is_ok();
            let reference = Reference::Tag(tag("v1"));
            let used = two.catalog.manifest(&app, &reference).await.is_ok();
            assert_eq!(there, used, "{stopped:?} at {at}");
            one.catalog.flush().await.expect("settled");
            two.catalog.flush().await.expect("settled");
            assert_sound(&world).await;
            if !did_stop {
                break;
            }
        }
    }
}
