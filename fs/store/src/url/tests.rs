//! What people write, and what they mistype.

use super::*;

fn parse(text: &str) -> StoreUrl {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn refuse(text: &str) -> UrlError {
    text.parse::<StoreUrl>().expect_err(text)
}

#[test]
fn every_kind_of_url_round_trips() {
    for text in [
        "memory:",
        "file:///var/lib/yadokari",
        "file:///with%20space/%E3%83%A4",
        "s3://Bucket",
        "s3://bucket/some/prefix?region=eu-1&endpoint=http://127.0.0.1:9000",
        "rados://pool",
        "rados://yado@Pool_1/ns?conf=/etc/ceph/ceph.conf&meta_pool=meta",
        "rados://p?mon_host=10.0.0.1:6789,[v2:10.0.0.2:3300]&keyring=/k&timeout=30s",
        "rados://a%2Fb/c%40d",
    ] {
        let url = parse(text);
        assert_eq!(url.to_string(), text);
        assert_eq!(parse(&url.to_string()), url);
    }
}

#[test]
fn a_rados_url_has_all_its_parts() {
    let StoreUrl::Rados(url) =
        parse("rados://client.yado@homes/ns?conf=/c&meta_pool=meta&timeout=2m")
    else {
        panic!("not a rados URL")
    };
    assert_eq!(url.client, "yado");
    assert_eq!((url.pool.as_str(), url.namespace.as_str()), ("homes", "ns"));
    assert_eq!(url.meta_pool.as_deref(), Some("meta"));
    assert_eq!(url.timeout, Duration::from_secs(120));
}

#[test]
fn a_meta_pool_that_is_the_pool_is_none() {
    assert_eq!(parse("rados://p?meta_pool=p"), parse("rados://p"));
}

#[test]
fn an_error_names_the_part_and_the_remedy() {
    let cases = [
        ("/var/lib/x", "scheme", "file:///var/lib/x"),
        ("pool", "scheme", "rados://POOL"),
        ("rado://x", "scheme", "`rados`"),
        ("rados:x", "scheme", "rados://"),
        ("rados://", "pool", "rados://POOL"),
        ("rados://p/a/b", "namespace", "rados://POOL/NAMESPACE"),
        ("rados://u:secret@p", "client", "keyring"),
        ("rados://p?conf=ceph.conf", "parameter conf", "whole path"),
        ("rados://p?cnf=/x", "parameter cnf", "`conf`"),
        ("rados://p?metapool=x", "parameter metapool", "`meta_pool`"),
        ("rados://p?timeout=soon", "parameter timeout", "timeout=10s"),
        ("rados://p?conf", "parameter conf", "NAME=VALUE"),
        ("rados://p?conf=/a&conf=/b", "parameter conf", "leave one"),
        ("rados://p%2", "pool", "hexadecimal"),
        ("file://data", "path", "file:///data"),
        ("file://localhost/x", "path", "file:///x"),
        ("file:///x?sync=no", "parameter sync", "takes none"),
        ("s3://", "bucket", "s3://BUCKET"),
        ("s3://key:secret@b", "bucket", "AWS_ACCESS_KEY_ID"),
        ("memory:x", "path", "`memory:`"),
        ("rados://p#x", "fragment", "%23"),
    ];
    for (text, part, remedy) in cases {
        let error = refuse(text);
        assert_eq!(error.part, part, "{error}");
        assert!(error.remedy.contains(remedy), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}
