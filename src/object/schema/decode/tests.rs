//! What clients send, and what they are told.

use serde_json::json;

use super::*;
use crate::object::schema::builtin;

fn root(api_version: &str, kind: &str) -> Root<'static> {
    let gv = GroupVersion::parse(api_version).unwrap();
    builtin().root(&Gvk::new(gv.group, gv.version, kind)).unwrap()
}

fn refusal(body: &str, root: Root) -> String {
    let status = json(body.as_bytes(), Some(root), Validation::Strict).unwrap_err();
    assert_eq!((status.code, status.reason.as_str()), (400, "BadRequest"));
    status.message
}

#[test]
fn unknown_and_duplicate_fields_are_refused_warned_about_or_dropped() {
    let body = br#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":1,"replicas":2,
        "foo":1,"template":{"spec":{"containers":[{"name":"a","imagee":"x"}]}}}}"#;
    let deployment = Some(root("apps/v1", "Deployment"));
    let strict = json(body, deployment, Validation::Strict).unwrap_err();
    assert_eq!(
        strict.message,
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: \
         duplicate field \"spec.replicas\", unknown field \"spec.foo\", unknown field \
         \"spec.template.spec.containers[0].imagee\""
    );
    let warned = json(body, deployment, Validation::Warn).unwrap();
    assert_eq!(warned.warnings[1], "unknown field \"spec.foo\"");
    let ignored = json(body, deployment, Validation::Ignore).unwrap();
    assert_eq!(ignored.value, warned.value);
    assert!(ignored.warnings.is_empty());
    assert_eq!(
        ignored.value["spec"],
        json!({"replicas": 2, "template": {"spec": {"containers": [{"name": "a"}]}}})
    );
}

#[test]
fn type_errors_name_the_go_field() {
    let deployment = root("apps/v1", "Deployment");
    let wrap = "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot \
                unmarshal ";
    for (spec, error) in [
        (
            r#"{"replicas":"3"}"#,
            "string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"replicas":1.5}"#,
            "number 1.5 into Go struct field DeploymentSpec.spec.replicas of type \
             int32",
        ),
        (
            r#"{"template":{"spec":{"containers":{}}}}"#,
            "object into Go struct field PodSpec.spec.template.spec.containers of type \
             []v1.Container",
        ),
        (
            r#"{"template":{"spec":{"containers":[{"env":[{"value":1}]}]}}}"#,
            "number into Go struct field EnvVar.spec.template.spec.containers.env.value of type \
             string",
        ),
        (
            r#"{"template":{"spec":{"containers":[{"ports":[{"protocol":true}]}]}}}"#,
            "bool into Go struct field ContainerPort.spec.template.spec.containers.ports.protocol \
             of type v1.Protocol",
        ),
        (r#"[]"#, "array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
    ] {
        assert_eq!(refusal(&format!(r#"{{"spec":{spec}}}"#), deployment), format!("{wrap}{error}"));
    }
    assert_eq!(
        refusal(r#"{"metadata":{"labels":{"a":1}}}"#, deployment),
        format!("{wrap}number into Go struct field ObjectMeta.metadata.labels of type string")
    );
}

#[test]
fn bodies_that_are_not_objects_of_the_kind_are_refused() {
    let pod = root("v1", "Pod");
    assert_eq!(
        refusal("{\"a\"", pod),
        "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; \
         json parse error: unexpected end of JSON input ({\"a\")"
    );
    assert!(refusal("[]", pod).contains("cannot unmarshal array into Go value of type struct"));
    assert_eq!(
        refusal(r#"{"apiVersion":"v1","kind":"Service"}"#, pod),
        "Service in version \"v1\" cannot be handled as a Pod: converting (v1.Service) to \
         (core.Pod): unknown conversion"
    );
    assert!(refusal(r#"{"kind":"Poodle"}"#, pod).contains("no kind \"Poodle\" is registered"));
    assert_eq!(
        refusal(
            r#"{"apiVersion":"autoscaling/v1"}"#,
            root("autoscaling/v2", "HorizontalPodAutoscaler")
        ),
        "the API version in the data (autoscaling/v1) does not match the expected API version \
         (autoscaling/v2)"
    );
    let deep = format!("{{\"spec\":{}", "[".repeat(10_000));
    assert!(refusal(&deep, pod).contains("exceeded max depth"));
}

#[test]
fn nulls_quantities_times_and_bytes_become_canonical() {
    let body = br#"{"metadata":{"creationTimestamp":null,"labels":{"a":null}},
        "spec":{"nodeName":null,"containers":[{"resources":{"limits":
        {"cpu":"0.1","memory":1024,"x":"1Gi"}},"ports":null,
        "livenessProbe":{"httpGet":{"port":"http"}},"readinessProbe":{"tcpSocket":{"port":80}}}]},
        "status":{"startTime":"2026-01-01T00:00:00+01:00"}}"#;
    let pod = json(body, Some(root("v1", "Pod")), Validation::Strict).unwrap().value;
    assert_eq!(
        pod,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": ""}},
            "spec": {"containers": [{"resources": {"limits":
                {"cpu": "100m", "memory": "1024", "x": "1Gi"}},
                "livenessProbe": {"httpGet": {"port": "http"}},
                "readinessProbe": {"tcpSocket": {"port": 80}}}]},
            "status": {"startTime": "2025-12-31T23:00:00Z"}})
    );
    let secret = root("v1", "Secret");
    assert!(
        refusal(r#"{"data":{"a":"%%"}}"#, secret).contains("illegal base64 data at input byte 0")
    );
    let pod = root("v1", "Pod");
    assert!(
        refusal(r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}"#, pod)
            .contains("quantities must match the regular expression")
    );
}

#[test]
fn schemas_of_custom_resources_take_their_short_forms() {
    let body = br#"{"spec":{"versions":[{"schema":{"openAPIV3Schema":{"properties":{
        "a":{"additionalProperties":true,"default":{"x":[1,null]}},
        "b":{"items":{"type":"string"},"x-kubernetes-list-type":"set"}}}}}]}}"#;
    let crd = root("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let value = json(body, Some(crd), Validation::Strict).unwrap().value;
    let schema = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    assert_eq!(
        *schema,
        json!({"a": {"additionalProperties": true, "default": {"x": [1, null]}},
               "b": {"items": {"type": "string"}, "x-kubernetes-list-type": "set"}})
    );
}

#[test]
fn without_a_type_everything_is_kept_and_duplicates_are_seen() {
    let decoded = json(br#"{"a":[{"b":1,"b":2.0}],"c":null}"#, None, Validation::Warn).unwrap();
    assert_eq!(decoded.value, json!({"a": [{"b": 2.0}], "c": null}));
    assert_eq!(decoded.warnings, ["duplicate field \"a[0].b\""]);
    assert!(json(b"3", None, Validation::Ignore).is_err());
}

#[test]
fn yaml_is_read_as_kubectl_reads_it() {
    let body = b"
kind: Pod
spec: &spec
  hostNetwork: yes
  containers:
  - name: 'yes'
    resources: {limits: {cpu: 0.5}}
  volumes:
  - configMap: {defaultMode: 0644, name: x}
";
    let pod = yaml(body, Some(root("v1", "Pod")), Validation::Strict).unwrap().value;
    assert_eq!(
        pod["spec"],
        json!({"hostNetwork": true,
            "containers": [{"name": "yes", "resources": {"limits": {"cpu": "500m"}}}],
            "volumes": [{"configMap": {"defaultMode": 420, "name": "x"}}]})
    );
    let twice = b"spec: {nodeName: a, nodeName: b}";
    let status = yaml(twice, Some(root("v1", "Pod")), Validation::Strict).unwrap_err();
    assert!(status.message.contains("duplicate field \"spec.nodeName\""), "{status}");
    let broken = yaml(b"a: [", Some(root("v1", "Pod")), Validation::Strict).unwrap_err();
    assert!(broken.message.contains("must be of type Pod): yaml: "), "{broken}");
    let two = yaml_documents(b"a: 1\n---\n---\nb: &x {c: 2}\nd: {<<: *x, e: 3}").unwrap();
    assert_eq!(two, [json!({"a": 1}), json!({"b": {"c": 2}, "d": {"c": 2, "e": 3}})]);
}

#[test]
fn a_yaml_alias_bomb_and_deep_yaml_are_refused() {
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![alias; 9].join(",")));
    }
    let status = yaml(bomb.as_bytes(), Some(root("v1", "Pod")), Validation::Ignore).unwrap_err();
    assert_eq!(status.code, 400);
    let deep = "[".repeat(10_000);
    assert_eq!(yaml(deep.as_bytes(), None, Validation::Ignore).unwrap_err().code, 400);
}

#[test]
fn a_patched_object_is_checked_by_the_same_rules() {
    let deployment = root("apps/v1", "Deployment");
    let error = value(json!({"spec": {"replicas": "x"}}), deployment, Validation::Strict);
    assert!(error.unwrap_err().starts_with("json: cannot unmarshal string into Go struct field"));
    let decoded = value(json!({"spec": {"replicas": 1, "x": 2}}), deployment, Validation::Warn);
    assert_eq!(decoded.unwrap().value, json!({"spec": {"replicas": 1}}));
}
