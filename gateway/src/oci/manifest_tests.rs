//! Manifests as clients write them, and as nobody should.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn descriptor(digest: &str) -> Value {
    json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": 7})
}

fn image() -> Value {
    json!({
        "schemaVersion": 2, "mediaType": media::OCI_MANIFEST,
        "config": descriptor(A), "layers": [descriptor(B)],
    })
}

fn parse(content_type: Option<&str>, document: &Value) -> Result<Manifest, String> {
    Manifest::parse(content_type, document.to_string().as_bytes()).map_err(|e| e.message)
}

#[test]
fn an_image_is_its_configuration_and_its_layers() {
    let manifest = parse(Some(media::OCI_MANIFEST), &image()).unwrap();
    let digests: Vec<_> = manifest.blobs.iter().map(|part| part.digest.to_string()).collect();
    assert_eq!(digests, [A, B]);
    assert_eq!(manifest.artifact_type.as_deref(), Some("application/vnd.oci.image.config.v1+json"));
    assert_eq!(manifest.kind, Kind::Image);
}

#[test]
fn dockers_schema_2_and_lists_are_taken() {
    let mut document = image();
    document["mediaType"] = media::DOCKER_MANIFEST.into();
    assert_eq!(parse(None, &document).unwrap().media_type, media::DOCKER_MANIFEST);
    let list = json!({
        "schemaVersion": 2, "mediaType": media::DOCKER_LIST,
        "manifests": [{
            "mediaType": media::DOCKER_MANIFEST, "digest": A, "size": 1,
            "platform": {"architecture": "arm", "os": "linux", "variant": "v7",
                "os.version": "10", "features": ["sse4"]},
        }],
    });
    let list = parse(Some(media::DOCKER_LIST), &list).unwrap();
    assert_eq!((list.kind, list.children.len(), list.artifact_type), (Kind::Index, 1, None));
}

#[test]
fn layers_that_lie_elsewhere_need_not_be_here() {
    let mut document = image();
    document["layers"][0]["urls"] = json!(["https://store.example.com/x"]);
    assert_eq!(parse(None, &document).unwrap().blobs.len(), 1);
    document["layers"][0]["urls"] = json!([]);
    assert_eq!(parse(None, &document).unwrap().blobs.len(), 2);
}

#[test]
fn empty_lists_and_nulls_mean_nothing_is_there() {
    for layers in [json!([]), Value::Null] {
        let mut document = image();
        document["layers"] = layers;
        assert_eq!(parse(None, &document).unwrap().blobs.len(), 1);
    }
    let index = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": null});
    assert!(parse(None, &index).unwrap().children.is_empty());
}

#[test]
fn a_subject_and_a_type_make_a_referrer() {
    let mut document = image();
    document["subject"] = descriptor(B);
    document["artifactType"] = "application/vnd.example.sbom".into();
    document["annotations"] = json!({"a": "b"});
    document["unknown"] = json!({"kept": ["in", "the", "bytes"]});
    let manifest = parse(None, &document).unwrap();
    assert_eq!(manifest.subject.unwrap().to_string(), B);
    assert_eq!(manifest.artifact_type.as_deref(), Some("application/vnd.example.sbom"));
    assert_eq!(manifest.annotations["a"], "b");
}

#[test]
fn header_and_document_may_not_disagree() {
    assert!(parse(Some(media::OCI_INDEX), &image()).unwrap_err().contains("mediaType"));
    let with_parameters = format!("{}; charset=utf-8", media::OCI_MANIFEST);
    assert!(parse(Some(&with_parameters), &image()).is_ok());
    assert!(parse(Some("application/json"), &image()).is_ok());
}

#[test]
fn what_is_two_things_at_once_is_refused() {
    let mut both = image();
    both["manifests"] = json!([descriptor(A)]);
    assert!(parse(None, &both).unwrap_err().contains("another kind"));
    let mut list = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": []});
    list["layers"] = json!([descriptor(A)]);
    assert!(parse(None, &list).is_err());
}

#[test]
fn nonsense_is_refused_with_its_reason() {
    let err = |bytes: &[u8]| Manifest::parse(None, bytes).unwrap_err();
    assert_eq!(err(b"blablabla").code, Code::ManifestInvalid);
    assert!(err(b"{\"schemaVersion\":2,\"schemaVersion\":2}").message.contains("duplicate"));
    assert!(err(b"{}").message.contains("schemaVersion"));
    assert!(err(b"{\"schemaVersion\":2}").message.contains("config"));
    let mut bad = image();
    bad["layers"][0]["digest"] = "sha256:short".into();
    assert!(parse(None, &bad).is_err());
    bad = image();
    bad["layers"][0]["size"] = (-1).into();
    assert!(parse(None, &bad).is_err());
    bad = image();
    bad["mediaType"] = "application/vnd.docker.distribution.manifest.v1+json".into();
    assert!(parse(None, &bad).unwrap_err().contains("not supported"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::parse(None, &bytes);
    }

    #[test]
    fn a_damaged_manifest_is_refused_or_read(at in 0usize..200, byte: u8) {
        let mut bytes = image().to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Manifest::parse(Some(media::OCI_MANIFEST), &bytes);
    }
}
