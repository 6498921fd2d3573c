//! RuntimeClass: a pod's class exists, and its overhead and scheduling become the pod's.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Operation, Plugin, Request, list, push};
use crate::api::objects::SharedObjects;
use crate::object::status::Result;
use crate::object::{Value, meta};

/// The plug-in.
pub(super) struct RuntimeClass {
    objects: SharedObjects,
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

impl RuntimeClass {
    pub(super) fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }

    fn class(&self, request: &Request, pod: &Value) -> Result<Option<Arc<Value>>> {
        let Some(name) = meta::at(pod, &["spec", "runtimeClassName"]).and_then(Value::as_str)
        else {
            return Ok(None);
        };
        let class = self.objects.get("runtimeclasses", "node.k8s.io", "", name);
        class.map(Some).ok_or_else(|| {
            request.forbidden(format!("pod rejected: RuntimeClass {name:?} not found"))
        })
    }

    fn complete(&self, request: &Request, pod: &mut Value) -> Result<()> {
        let Some(class) = self.class(request, pod)? else { return Ok(()) };
        if let Some(overhead) = overhead(&class) {
            let own = meta::at(pod, &["spec", "overhead"]).filter(|own| !is_empty(own));
            if own.is_some_and(|own| own != overhead) {
                return Err(request.forbidden(MISMATCH));
            }
            meta::set(pod, &["spec", "overhead"], overhead.clone());
        }
        let selector = meta::at(&class, &["scheduling", "nodeSelector"]);
        for (key, value) in selector.and_then(Value::as_object).into_iter().flatten() {
            let path = ["spec", "nodeSelector", key];
            match meta::at(pod, &path) {
                Some(own) if own != value => {
                    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
                    return Err(request.forbidden(format!(
                        "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; \
                         pod.spec.nodeSelector[{key}] = {}",
                        text(value),
                        text(own)
                    )));
                }
                _ => meta::set(pod, &path, value.clone()),
            }
        }
        for toleration in list(&class, &["scheduling", "tolerations"]) {
            if !list(pod, &["spec", "tolerations"]).contains(toleration) {
                push(pod, &["spec", "tolerations"], toleration.clone());
            }
        }
        Ok(())
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_none_or(|map| map.is_empty())
}

/// The class's overhead, if it defines any.
fn overhead(class: &Value) -> Option<&Value> {
    class.get("overhead").filter(|value| value.is_object())?;
    Some(meta::at(class, &["overhead", "podFixed"]).unwrap_or(&Value::Null))
}

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    async fn admit(&self, request: &mut Request) -> Result<()> {
        if !request.is("", "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        let Some(mut pod) = request.object.take() else { return Ok(()) };
        let result = self.complete(request, &mut pod);
        request.object = Some(pod);
        result
    }

    async fn validate(&self, request: &Request) -> Result<()> {
        let is_new = request.is("", "pods") && request.operation == Operation::Create;
        let Some(pod) = request.object.as_ref().filter(|_| is_new) else { return Ok(()) };
        let class = self.class(request, pod)?;
        let own = meta::at(pod, &["spec", "overhead"]).filter(|own| own.is_object());
        match class.as_deref().and_then(overhead) {
            Some(defined) if own != Some(defined) && !(defined.is_null() && own.is_none()) => {
                Err(request.forbidden(MISMATCH))
            }
            None if own.is_some() => Err(request.forbidden(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined \
                 Overhead",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::admission::tests::request;
    use crate::api::objects::MemoryObjects;
    use serde_json::json;

    #[tokio::test]
    async fn a_class_brings_overhead_and_scheduling_or_is_refused() {
        let class = json!({"metadata": {"name": "vm"}, "handler": "vm",
            "overhead": {"podFixed": {"memory": "1Gi"}},
            "scheduling": {"nodeSelector": {"vm": "yes"},
                "tolerations": [{"key": "vm", "operator": "Exists"}]}});
        let objects = MemoryObjects::with([("runtimeclasses", "node.k8s.io", class)]);
        let plugin = RuntimeClass::new(Arc::new(objects));
        let run = async |spec: Value| -> Result<Value> {
            let pod = json!({"metadata": {"name": "p"}, "spec": spec});
            let mut request = request("pods", "", "ns", pod);
            plugin.admit(&mut request).await?;
            plugin.validate(&request).await?;
            Ok(request.object.unwrap_or_default()["spec"].clone())
        };
        let spec = run(json!({"runtimeClassName": "vm"})).await.unwrap();
        assert_eq!(spec["overhead"], json!({"memory": "1Gi"}));
        assert_eq!(spec["nodeSelector"], json!({"vm": "yes"}));
        assert_eq!(spec["tolerations"][0]["key"], "vm");
        for (spec, text) in [
            (json!({"runtimeClassName": "x"}), "pod rejected: RuntimeClass \"x\" not found"),
            (json!({"runtimeClassName": "vm", "overhead": {"memory": "2Gi"}}), MISMATCH),
            (
                json!({"overhead": {"memory": "2Gi"}}),
                "Pod Overhead set without corresponding RuntimeClass defined Overhead",
            ),
            (
                json!({"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}}),
                "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; \
                 pod.spec.nodeSelector[vm] = no",
            ),
        ] {
            assert!(run(spec).await.unwrap_err().message.ends_with(text), "{text}");
        }
    }
}
