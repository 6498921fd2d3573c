//! The table beside what others say of the same types.

use serde_json::json;

use super::decode::{self, Validation};
use super::*;

fn round_trip(value: Value) {
    let gvk = crate::object::meta::gvk(&value).unwrap();
    let root = builtin().root(&gvk).unwrap();
    let body = serde_json::to_vec(&value).unwrap();
    let value = decode::json(&body, Some(root), Validation::Strict).unwrap().value;
    let bytes = encode::protobuf(&gvk, &value, root);
    let (said, back) = decode::protobuf(&bytes, &|gvk| builtin().root(gvk)).unwrap();
    assert_eq!(said, gvk);
    assert_eq!(back, value);
}

#[test]
fn objects_survive_protobuf() {
    round_trip(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a",
        "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "", "b": "c"},
        "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {".": {}}}}]},
        "spec": {"hostNetwork": true, "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef":
                {"name": "s", "key": "k", "optional": false}}}],
            "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}},
            "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 3},
            "readinessProbe": {"tcpSocket": {"port": 80}}}],
            "volumes": [{"name": "v", "emptyDir": {}},
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "x"}}]}}]},
        "status": {"podIPs": [{"ip": "10.0.0.1"}]}}));
    round_trip(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}},
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
            "template": {"metadata": {}, "spec": {"containers": [{"name": "c"}]}}}}));
    round_trip(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
        "spec": {"clusterIPs": ["10.43.0.1"], "ports": [{"port": 80, "targetPort": "web"}]}}));
    round_trip(json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "AAEC", "b": ""}}));
    round_trip(json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "metadata": {}, "spec": {}, "status": {"user": {"extra": {"k": ["a", "b"]}}}}));
    round_trip(json!({"apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy", "spec": {"matchConstraints": {"resourceRules":
            [{"apiGroups": ["a"], "operations": ["CREATE"], "resourceNames": ["n"]}]}}}));
    round_trip(json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "a.b"}, "spec": {"group": "b", "scope": "Namespaced",
            "names": {"kind": "A", "plural": "as"}, "versions": [{"name": "v1", "served": true,
            "storage": false, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "n": {"maximum": 1.5, "minLength": 0, "default": {"a": [1]}},
                "b": {"additionalProperties": false},
                "c": {"items": {"x-kubernetes-int-or-string": true}, "enum": ["a", 1]}}}}}]}}));
}

#[test]
fn zeros_that_go_sends_unasked_are_dropped_and_pointers_kept() {
    let root = builtin().root_by_name("apps.v1.Deployment").unwrap();
    let gvk = root.kind.unwrap().clone();
    let sent = json!({"metadata": {"name": "a", "namespace": "", "generation": 0},
        "spec": {"replicas": 0, "minReadySeconds": 0, "paused": false}});
    let bytes = encode::protobuf(&gvk, &sent, root);
    let (_, value) = decode::protobuf(&bytes, &|_| Some(root)).unwrap();
    assert_eq!(value["metadata"], json!({"name": "a"}));
    assert_eq!(value["spec"], json!({"replicas": 0}));
}

#[test]
fn broken_protobuf_is_refused() {
    let root = builtin().root_by_name("core.v1.Pod").unwrap();
    let refuse = |body: &[u8]| decode::protobuf(body, &|_| Some(root)).unwrap_err();
    assert!(refuse(b"{}").message.contains("does not appear to be a protobuf message"));
    assert_eq!(refuse(b"k8s\0\x12\xff").message, "unexpected EOF");
    let gvk = root.kind.unwrap();
    let mut bytes = encode::protobuf(gvk, &json!({"metadata": {"name": "abc"}}), root);
    let at = bytes.windows(3).position(|window| window == b"abc").unwrap();
    bytes[at - 1] = 200;
    assert!(refuse(&bytes).message.starts_with("Pod in version \"v1\" cannot be handled as a Pod"));
    let none = decode::protobuf(&bytes, &|_| None).unwrap_err();
    assert!(none.message.contains("no kind \"Pod\" is registered"));
}

#[test]
fn the_table_agrees_with_k8s_openapi_on_names() {
    let mut seen = 0;
    for (name, schema) in docs::definitions(&[]) {
        let Some(root) = builtin().root_by_name(&name) else { continue };
        let theirs: Vec<&String> =
            schema["properties"].as_object().into_iter().flat_map(|map| map.keys()).collect();
        let mut ours: Vec<&str> =
            root.get().fields.iter().map(|field| field.name.as_ref()).collect();
        if theirs.iter().all(|name| *name != "kind") && !root.get().kinds.is_empty() {
            ours.retain(|name| !matches!(*name, "apiVersion" | "kind"));
        }
        let mut theirs: Vec<&str> = theirs.into_iter().map(String::as_str).collect();
        theirs.sort();
        assert_eq!(ours, theirs, "{name}");
        seen += 1;
    }
    assert!(seen > 500, "only {seen} types were compared");
}

#[test]
fn the_deepest_bodies_are_read_and_deeper_ones_refused() {
    use crate::stdx::limits::BODY_DEPTH_MAX;
    let crd = builtin().root_by_name("apiextensions.v1.CustomResourceDefinition").unwrap();
    let gvk = crd.kind.unwrap().clone();
    let head = r#"{"spec":{"versions":[{"schema":{"openAPIV3Schema":"#;
    let nested = |depth: usize| {
        let body =
            format!("{head}{}{{}}{}}}}}]}}}}", r#"{"not":"#.repeat(depth), "}".repeat(depth));
        decode::json(body.as_bytes(), Some(crd), Validation::Strict)
    };
    assert!(nested(BODY_DEPTH_MAX).unwrap_err().message.contains("exceeded max depth"));
    let deep = nested(BODY_DEPTH_MAX - 10).unwrap().value;
    let bytes = encode::protobuf(&gvk, &deep, crd);
    let (_, back) = decode::protobuf(&bytes, &|_| Some(crd)).unwrap();
    assert_eq!(back["spec"], deep["spec"]);
    let mut message = Vec::new();
    for _ in 0..BODY_DEPTH_MAX + 2 {
        let mut outer = Vec::new();
        wire::put_bytes(&mut outer, 28, &message);
        message = outer;
    }
    let mut body = b"k8s\0".to_vec();
    wire::put_bytes(&mut body, 2, &message);
    let schema = builtin().root_by_name("apiextensions.v1.JSONSchemaProps");
    let status = decode::protobuf(&body, &|_| schema).unwrap_err();
    assert!(status.message.ends_with("exceeded max depth"), "{status}");
    let mut merged = crate::object::patch::strategic::apply(crd, &deep, &deep).unwrap();
    assert_eq!(merged, deep);
    crd.default(&mut merged);
    crd.prune(&mut merged);
    // Whatever is accepted can be read back by serde.
    let list = format!(r#"{{"items":[{merged}]}}"#);
    assert!(serde_json::from_str::<Value>(&list).is_ok());
}

proptest::proptest! {
    #[test]
    fn no_body_makes_a_decoder_panic(bytes: Vec<u8>, text in "[\\[\\]{}\":,a-z0-9 \\n&*-]{0,60}") {
        let pod = builtin().root_by_name("core.v1.Pod");
        for body in [bytes.as_slice(), text.as_bytes()] {
            let _ = decode::json(body, pod, Validation::Strict);
            let _ = decode::yaml(body, pod, Validation::Strict);
            let mut envelope = b"k8s\0\x12".to_vec();
            envelope.push(body.len().min(127) as u8);
            envelope.extend_from_slice(&body[..body.len().min(127)]);
            let _ = decode::protobuf(&envelope, &|_| pod);
        }
    }
}
