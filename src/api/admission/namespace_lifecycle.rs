//! NamespaceLifecycle: nothing new in a namespace that is missing or ending; some never end.

use async_trait::async_trait;

use super::{Operation, Plugin, Request};
use crate::api::objects::SharedObjects;
use crate::object::status::{Cause, Result};
use crate::object::{Gvr, Status, meta};

/// Namespaces that may not be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The plug-in.
pub(super) struct NamespaceLifecycle {
    objects: SharedObjects,
}

impl NamespaceLifecycle {
    pub(super) fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    async fn admit(&self, request: &mut Request) -> Result<()> {
        let namespace = request.attributes.namespace.as_str();
        let gvr = request.attributes.gvr.as_ref();
        let is = |group: &str, resource: &str| {
            gvr.is_some_and(|gvr| gvr.group == group && gvr.resource == resource)
        };
        if is("", "namespaces") {
            let name = request.name.as_str();
            if request.operation == Operation::Delete && IMMORTAL.contains(&name) {
                let gvr = Gvr::new("", "v1", "namespaces");
                return Err(Status::forbidden(&gvr, name, "this namespace may not be deleted"));
            }
            return Ok(());
        }
        // Asking about access to a namespace that is not there is no write to it.
        let is_review = is("authorization.k8s.io", "localsubjectaccessreviews");
        let is_write = matches!(request.operation, Operation::Create | Operation::Update);
        if namespace.is_empty() || is_review || !is_write {
            return Ok(());
        }
        let Some(object) = self.objects.get("namespaces", "", "", namespace) else {
            return Err(Status::not_found(&Gvr::new("", "v1", "namespaces"), namespace));
        };
        let is_ending = meta::text(&object, &["status", "phase"]) == "Terminating";
        if request.operation == Operation::Create && is_ending {
            let mut status = request.forbidden(format!(
                "unable to create new content in namespace {namespace} because it is being \
                 terminated"
            ));
            if let Some(details) = &mut status.details {
                details.causes.push(Cause {
                    reason: "NamespaceTerminating".to_owned(),
                    message: format!("namespace {namespace} is being terminated"),
                    field: "metadata.namespace".to_owned(),
                });
            }
            return Err(status);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::admission::tests::request;
    use crate::api::objects::MemoryObjects;
    use serde_json::json;
    use std::sync::Arc;

    #[tokio::test]
    async fn namespaces_must_be_there_and_stay() {
        let namespace = |name: &str, phase: &str| {
            ("namespaces", "", json!({"metadata": {"name": name}, "status": {"phase": phase}}))
        };
        let objects =
            MemoryObjects::with([namespace("live", "Active"), namespace("ending", "Terminating")]);
        let plugin = NamespaceLifecycle::new(Arc::new(objects));
        let pod = || json!({"metadata": {"name": "p"}});
        let refused = async |namespace: &str, operation: Operation| {
            let mut request = request("pods", "", namespace, pod());
            request.operation = operation;
            plugin.admit(&mut request).await.err()
        };
        assert_eq!(refused("live", Operation::Create).await, None);
        assert_eq!(refused("ending", Operation::Update).await, None);
        assert_eq!(refused("gone", Operation::Delete).await, None);
        let missing = refused("gone", Operation::Create).await.unwrap();
        assert_eq!(missing.message, "namespaces \"gone\" not found");
        let ending = refused("ending", Operation::Create).await.unwrap();
        assert_eq!(
            ending.message,
            "pods \"p\" is forbidden: unable to create new content in namespace ending because it \
             is being terminated"
        );
        assert_eq!(ending.details.unwrap().causes[0].reason, "NamespaceTerminating");
        for (name, allowed) in [("default", false), ("kube-system", false), ("live", true)] {
            let object = json!({"metadata": {"name": name}});
            let mut request = request("namespaces", "", "", object);
            request.operation = Operation::Delete;
            assert_eq!(plugin.admit(&mut request).await.is_ok(), allowed, "{name}");
        }
    }
}
