//! Paths by table, by construction and by chance.

use proptest::prelude::*;

use super::*;

const SHA256: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn repo(text: &str) -> RepoName {
    text.parse().unwrap()
}

fn refused(path: &str) -> Code {
    match parse(path) {
        Err(error) => error.code,
        Ok(route) => panic!("{path} is {route:?}"),
    }
}

#[test]
fn every_endpoint_of_the_specification_is_known() {
    let digest = SHA256.parse::<Digest>().unwrap();
    let tag = |text: &str| Reference::Tag(text.parse().unwrap());
    for (path, expected) in [
        (String::new(), Route::Base),
        ("_catalog".into(), Route::Catalog),
        ("_oci/ext/discover".into(), Route::Extensions),
        ("a/tags/list".into(), Route::Tags(repo("a"))),
        ("a/b/c/manifests/v1.0_x-y".into(), Route::Manifest(repo("a/b/c"), tag("v1.0_x-y"))),
        (format!("a/manifests/{SHA256}"), Route::Manifest(repo("a"), Reference::Digest(digest))),
        (format!("a/blobs/{SHA256}"), Route::Blob(repo("a"), digest)),
        ("a/blobs/uploads/".into(), Route::Uploads(repo("a"))),
        ("a/blobs/uploads".into(), Route::Uploads(repo("a"))),
        ("a/blobs/uploads/x-1".into(), Route::Upload(repo("a"), "x-1".into())),
        (format!("a/referrers/{SHA256}"), Route::Referrers(repo("a"), digest)),
    ] {
        assert_eq!(parse(&path).unwrap(), expected, "{path}");
    }
}

#[test]
fn words_of_the_api_may_be_parts_of_a_name() {
    let tag = |text: &str| Reference::Tag(text.parse().unwrap());
    assert_eq!(parse("tags/list/tags/list").unwrap(), Route::Tags(repo("tags/list")));
    assert_eq!(
        parse("a/manifests/b/manifests/c").unwrap(),
        Route::Manifest(repo("a/manifests/b"), tag("c"))
    );
    assert_eq!(
        parse("a/blobs/uploads/manifests/latest").unwrap(),
        Route::Manifest(repo("a/blobs/uploads"), tag("latest"))
    );
    assert_eq!(parse("a/manifests/tags/list").unwrap(), Route::Tags(repo("a/manifests")));
}

#[test]
fn a_path_is_decoded_exactly_once() {
    let encoded = SHA256.replace(':', "%3A");
    assert_eq!(
        parse(&format!("a%2Fb/blobs/{encoded}")).unwrap(),
        parse(&format!("a/b/blobs/{SHA256}")).unwrap()
    );
    assert_eq!(refused("a%252Fb/tags/list"), Code::NameInvalid);
    assert_eq!(refused("%2e%2e/a/tags/list"), Code::NameInvalid);
    assert_eq!(refused("a%00b/tags/list"), Code::NameInvalid);
    assert_eq!(refused("a%ff/tags/list"), Code::NameInvalid);
}

#[test]
fn tricks_with_names_are_refused() {
    for path in [
        "../a/tags/list",
        "a/../b/tags/list",
        "a/./b/tags/list",
        "a//b/tags/list",
        "/a/tags/list",
        "A/tags/list",
        "aB/tags/list",
        "a_-b/tags/list",
        "-a/tags/list",
        "a./tags/list",
        "a b/tags/list",
        "a\\b/tags/list",
        "a\n/tags/list",
        "ä/tags/list",
        "_catalog/tags/list",
    ] {
        assert_eq!(refused(path), Code::NameInvalid, "{path:?}");
    }
    assert_eq!(refused(&format!("a/{}/tags/list", "b".repeat(254))), Code::NameInvalid);
    assert_eq!(refused(&format!("{}/tags/list", "b/".repeat(2000))), Code::NameInvalid);
    assert_eq!(refused("a/tags/other"), Code::NameUnknown);
    assert_eq!(refused("a"), Code::NameUnknown);
    assert_eq!(refused("_catalog/"), Code::NameUnknown);
    assert_eq!(refused("a/blobs/sha256:zz"), Code::DigestInvalid);
    assert_eq!(refused("a/manifests/sha256:baddigeststring"), Code::DigestInvalid);
    assert_eq!(refused(&format!("a/blobs/{}", SHA256.to_uppercase())), Code::DigestInvalid);
    assert_eq!(refused("a/blobs/latest"), Code::DigestInvalid);
}

#[test]
fn a_reference_of_neither_form_can_be_asked_for_and_is_never_there() {
    for text in [".INVALID_MANIFEST_NAME", "", "-x", &"a".repeat(129)] {
        let route = parse(&format!("a/manifests/{text}")).unwrap();
        assert_eq!(route, Route::Manifest(repo("a"), Reference::Neither(text.to_owned())));
    }
}

proptest! {
    #[test]
    fn names_of_the_grammar_are_taken_and_come_back_as_they_were(
        name in "[a-z0-9]{1,8}(([._]|__|-{1,3})[a-z0-9]{1,8}){0,2}(/[a-z0-9]{1,8}([._-][a-z0-9]{1,4})?){0,3}",
        tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}",
    ) {
        match parse(&format!("{name}/manifests/{tag}")).unwrap() {
            Route::Manifest(repo, Reference::Tag(found)) => {
                prop_assert_eq!(repo.as_str(), name);
                prop_assert_eq!(found.as_str(), tag);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn whatever_is_taken_obeys_the_grammar(path in "(\\PC|%[0-9a-fA-F]{2}|/|blobs|uploads|tags|list|manifests|\\.\\.|a|:){0,24}") {
        if let Ok(Route::Tags(name) | Route::Manifest(name, _) | Route::Blob(name, _)
            | Route::Uploads(name) | Route::Upload(name, _) | Route::Referrers(name, _)) = parse(&path)
        {
            let name = name.as_str();
            prop_assert!(!name.is_empty() && name.len() <= 255);
            for part in name.split('/') {
                prop_assert!(part.starts_with(|c: char| c.is_ascii_digit() || c.is_ascii_lowercase()));
                prop_assert!(part.ends_with(|c: char| c.is_ascii_digit() || c.is_ascii_lowercase()));
                prop_assert!(part.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase() || b"._-".contains(&b)));
                prop_assert!(!part.contains(".."));
            }
        }
    }
}
