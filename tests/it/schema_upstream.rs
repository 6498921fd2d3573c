//! Holds our decoders against upstream's own fixtures, one of each kind in three encodings.
//!
//! Why ignored: the fixtures live in a Kubernetes tree outside the repository. Run it on a new
//! version with `KUBERNETES_TREE=/path cargo test --test it -- --ignored fixtures`.

use std::path::Path;

use clusterd::object::Value;
use clusterd::object::schema::decode::{self, Validation};
use clusterd::object::schema::{builtin, encode};

#[test]
#[ignore = "needs a Kubernetes tree: set KUBERNETES_TREE"]
fn upstreams_fixtures_are_one_object_in_every_encoding() {
    let tree = std::env::var("KUBERNETES_TREE").expect("KUBERNETES_TREE names a Kubernetes tree");
    let folder = Path::new(&tree).join("staging/src/k8s.io/api/testdata/HEAD");
    let mut seen = 0;
    for gvk in builtin().kinds().filter(|gvk| gvk.kind != "WatchEvent") {
        let group = if gvk.group.is_empty() { "core" } else { gvk.group.as_str() };
        let read = |ending: &str| {
            let name = format!("{group}.{}.{}.{ending}", gvk.version, gvk.kind);
            std::fs::read(folder.join(name))
        };
        let Ok(body) = read("json") else { continue };
        seen += 1;
        let root = builtin().root(gvk).expect("a kind of the table");
        let raw: Value = serde_json::from_slice(&body).expect("JSON");
        let from_json = decode::json(&body, Some(root), Validation::Strict).expect("JSON").value;
        assert_eq!(from_json, raw, "{gvk}: nothing is lost or changed");
        let body = read("yaml").expect("a YAML fixture");
        let from_yaml = decode::yaml(&body, Some(root), Validation::Strict).expect("YAML").value;
        assert_eq!(from_yaml, raw, "{gvk}: YAML");
        let body = read("pb").expect("a protobuf fixture");
        let types = |gvk: &_| builtin().root(gvk);
        let (said, from_protobuf) = decode::protobuf(&body, &types).expect("protobuf");
        assert_eq!((&said, &from_protobuf), (gvk, &raw), "{gvk}: protobuf");
        let again = encode::protobuf(gvk, &raw, root);
        assert_eq!(decode::protobuf(&again, &types).expect("protobuf").1, raw, "{gvk}: encoded");
    }
    assert!(seen > 60, "only {seen} fixtures were found");
}
