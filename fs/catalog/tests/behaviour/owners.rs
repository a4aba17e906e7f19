//! Owners, rights, and lists by what a caller may see.

use yadokari_catalog::{Access, Caller, CatalogError, Identity, Permission};

use super::*;

fn identity(uid: u32) -> Identity {
    Identity { authority: "system".to_owned(), uid: Some(uid), login: None }
}

fn caller(user: &str, groups: &[&str]) -> Caller {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Caller { user: Some(owner(user)), groups, admin: false }
}

#[tokio::test]
async fn a_name_stays_with_its_first_user_until_an_administrator_decides() {
    let world = world();
    let (one, two) = two(&world);
    let alice = owner("alice");
    one.catalog.claim_user(&alice, &identity(1), false).await.expect_err("nobody yet");
    one.catalog.claim_user(&alice, &identity(1), true).await.expect("claimed");
    two.catalog.claim_user(&alice, &identity(1), false).await.expect("the same");
    let clash = two.catalog.claim_user(&alice, &identity(2), true).await.expect_err("another");
    assert!(matches!(clash, CatalogError::Clash { .. }));
    let taken = one.catalog.create_group(&alice, Default::default()).await.expect_err("taken");
    assert!(matches!(taken, CatalogError::Exists { .. }));
    one.catalog.reassign(&alice, &identity(2)).await.expect("reassigned");
    two.catalog.claim_user(&alice, &identity(2), false).await.expect("theirs now");
    two.catalog.claim_user(&alice, &identity(1), false).await.expect_err("not any more");
}

#[tokio::test]
async fn logins_that_oci_cannot_say_are_mapped() {
    let world = world();
    let one = world.instance(1).catalog;
    assert_eq!(one.owner_of_login("ldap", "Alice Smith").await.expect("an answer"), None);
    one.map_login("ldap", "Alice Smith", &owner("alice")).await.expect("mapped");
    one.map_login("ldap", "Alice Smith", &owner("alice")).await.expect("the same again");
    one.map_login("ldap", "Alice Smith", &owner("bob")).await.expect_err("mapped already");
    let found = one.owner_of_login("ldap", "Alice Smith").await.expect("an answer");
    assert_eq!(found, Some(owner("alice")));
    assert_eq!(one.owner_of_login("pam", "bob").await.expect("an answer"), Some(owner("bob")));
}

#[tokio::test]
async fn rights_change_for_other_instances_too() {
    let world = world();
    let (one, two) = two(&world);
    let (alice, app) = (owner("alice"), repo("alice/app"));
    one.catalog.claim_user(&alice, &identity(1), true).await.expect("claimed");
    let bob = caller("bob", &[]);
    let of = |p: Permission| p;
    assert_eq!(two.catalog.permission(&bob, &app).await.expect("an answer"), Permission::None);
    for expected in [Permission::Read, Permission::None] {
        let share = expected == Permission::Read;
        one.catalog
            .change_rights(&alice, move |rights| {
                let mut access = Access::default();
                if share {
                    access.read_users.insert(owner("bob"));
                }
                rights.repositories.insert("app".to_owned(), access);
                Ok(())
            })
            .await
            .expect("changed");
        for instance in [&one, &two] {
            let found = instance.catalog.permission(&bob, &app).await.expect("an answer");
            assert_eq!(of(found), expected);
        }
    }
    let own = caller("alice", &[]);
    assert_eq!(two.catalog.permission(&own, &app).await.expect("an answer"), Permission::Manage);
}

#[tokio::test]
async fn everybody_sees_the_repositories_that_they_may_read() {
    let world = world();
    let one = world.instance(1);
    for (number, user) in ["alice", "bob", "carol"].into_iter().enumerate() {
        let identity = identity(number as u32);
        one.catalog.claim_user(&owner(user), &identity, true).await.expect("claimed");
        for name in ["a", "b", "c/d"] {
            let to = repo(&format!("{user}/{name}"));
            let new = manifest(name, Default::default(), &["t"]);
            one.catalog.put_manifest(&to, new).await.expect("put");
        }
    }
    one.push(&repo("alice/blobs-only"), &bytes(5, 5), 5).await.expect("pushed");
    one.catalog
        .change_rights(&owner("carol"), |rights| {
            rights.repositories.entry("c/d".to_owned()).or_default().public = true;
            Ok(())
        })
        .await
        .expect("shared");
    let listed = |who: Caller, after: Option<&'static str>, limit| {
        let catalog = one.catalog.clone();
        async move {
            let page = catalog.repositories(&who, after, limit).await.expect("a page");
            let names: Vec<String> = page.items.iter().map(|r| r.to_string()).collect();
            (names, page.more)
        }
    };
    let admin = Caller { admin: true, ..Caller::default() };
    assert_eq!(listed(admin.clone(), None, 100).await.0.len(), 9);
    let (page, more) = listed(admin, Some("alice/b"), 2).await;
    assert_eq!((page, more), (vec!["alice/c/d".to_owned(), "bob/a".to_owned()], true));
    let (page, more) = listed(caller("alice", &[]), None, 100).await;
    assert_eq!(page, ["alice/a", "alice/b", "alice/c/d", "carol/c/d"]);
    assert!(!more);
    assert_eq!(listed(Caller::default(), None, 100).await.0, ["carol/c/d"]);
    one.catalog.delete_manifest(&repo("carol/c/d"), &sha256(b"c/d")).await.expect("deleted");
    assert!(listed(Caller::default(), None, 100).await.0.is_empty());
    one.catalog
        .put_manifest(&repo("carol/c/d"), manifest("new", Default::default(), &[]))
        .await
        .expect("put");
    assert_eq!(listed(Caller::default(), None, 100).await.0, ["carol/c/d"]);
    assert_sound(&world).await;
}

#[tokio::test]
async fn a_blob_is_found_only_where_the_caller_may_read() {
    let world = world();
    let one = world.instance(1);
    let digest = one.push(&repo("alice/app"), &bytes(9, 9), 9).await.expect("pushed");
    one.catalog.claim_user(&owner("alice"), &identity(1), true).await.expect("claimed");
    let find = |who: Caller| {
        let catalog = one.catalog.clone();
        async move { catalog.find_blob(&who, &digest).await.expect("an answer") }
    };
    assert_eq!(find(caller("alice", &[])).await, Some(repo("alice/app")));
    assert_eq!(find(caller("bob", &["staff"])).await, None);
    one.catalog
        .change_rights(&owner("alice"), |rights| {
            rights.default.read_groups.insert("staff".to_owned());
            Ok(())
        })
        .await
        .expect("shared");
    assert_eq!(find(caller("bob", &["staff"])).await, Some(repo("alice/app")));
    assert_eq!(find(caller("bob", &[])).await, None);
}

#[tokio::test]
async fn the_managers_of_a_group_manage_it() {
    let world = world();
    let one = world.instance(1).catalog;
    let lab = owner("lab");
    one.create_group(&lab, [owner("bob")].into()).await.expect("made");
    let may = |user: &'static str| {
        let one = one.clone();
        async move { one.permission(&caller(user, &[]), &repo("lab/x")).await.expect("an answer") }
    };
    assert_eq!((may("bob").await, may("lab").await), (Permission::Manage, Permission::None));
    one.set_managers(&lab, [owner("carol")].into()).await.expect("set");
    assert_eq!((may("bob").await, may("carol").await), (Permission::None, Permission::Manage));
    let names: Vec<_> = one.owners(None, 10).await.expect("a page").items;
    assert_eq!(names.len(), 1);
}
