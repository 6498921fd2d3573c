//! DefaultStorageClass: a claim that names no class gets the default one.

use async_trait::async_trait;

use super::{Operation, Plugin, Request, default_class};
use crate::api::objects::SharedObjects;
use crate::object::meta;
use crate::object::status::Result;

const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
/// The annotation that named the class before the field did.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The plug-in.
pub(super) struct DefaultStorageClass {
    objects: SharedObjects,
}

impl DefaultStorageClass {
    pub(super) fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }
}

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    async fn admit(&self, request: &mut Request) -> Result<()> {
        let is_new =
            request.is("", "persistentvolumeclaims") && request.operation == Operation::Create;
        let Some(claim) = request.object.as_mut().filter(|_| is_new) else { return Ok(()) };
        let path = ["spec", "storageClassName"];
        let is_named = meta::at(claim, &path).is_some_and(|name| !name.is_null())
            || meta::annotations(claim).is_some_and(|all| all.contains_key(OLD_CLASS));
        if is_named {
            return Ok(());
        }
        let classes = self.objects.list("storageclasses", "storage.k8s.io", "");
        if let Some(class) = default_class(classes, IS_DEFAULT) {
            meta::set(claim, &path, meta::name(&class));
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
    async fn the_newest_default_is_taken_unless_a_class_is_named() {
        let class = |name: &str, created: &str, default: &str| {
            let metadata = json!({"name": name, "creationTimestamp": created,
                "annotations": {IS_DEFAULT: default}});
            ("storageclasses", "storage.k8s.io", json!({"metadata": metadata}))
        };
        let plugin = DefaultStorageClass::new(Arc::new(MemoryObjects::with([
            class("old", "2025-01-01T00:00:00Z", "true"),
            class("new", "2026-01-01T00:00:00Z", "true"),
            class("newest", "2026-02-01T00:00:00Z", "false"),
        ])));
        for (spec, expected) in [
            (json!({}), "new"),
            (json!({"storageClassName": ""}), ""),
            (json!({"storageClassName": "own"}), "own"),
        ] {
            let mut request = request("persistentvolumeclaims", "", "ns", json!({"spec": spec}));
            plugin.admit(&mut request).await.unwrap();
            assert_eq!(request.object.unwrap()["spec"]["storageClassName"], expected);
        }
    }
}
