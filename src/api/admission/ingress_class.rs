//! DefaultIngressClass: an ingress that names no class gets the default one.

use async_trait::async_trait;

use super::{Operation, Plugin, Request, default_class};
use crate::api::objects::SharedObjects;
use crate::object::meta;
use crate::object::status::Result;

const GROUP: &str = "networking.k8s.io";
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// The annotation that named the class before the field did.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

/// The plug-in.
pub(super) struct DefaultIngressClass {
    objects: SharedObjects,
}

impl DefaultIngressClass {
    pub(super) fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }
}

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    async fn admit(&self, request: &mut Request) -> Result<()> {
        let is_new = request.is(GROUP, "ingresses") && request.operation == Operation::Create;
        let Some(ingress) = request.object.as_mut().filter(|_| is_new) else { return Ok(()) };
        let path = ["spec", "ingressClassName"];
        let is_named = meta::at(ingress, &path).is_some_and(|name| !name.is_null())
            || meta::annotations(ingress).is_some_and(|all| all.contains_key(OLD_CLASS));
        if is_named {
            return Ok(());
        }
        let classes = self.objects.list("ingressclasses", GROUP, "");
        if let Some(class) = default_class(classes, IS_DEFAULT) {
            meta::set(ingress, &path, meta::name(&class));
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
    async fn only_an_ingress_without_any_class_gets_the_default() {
        let class = json!({"metadata": {"name": "main", "annotations": {IS_DEFAULT: "true"}}});
        let objects = MemoryObjects::with([("ingressclasses", GROUP, class)]);
        let plugin = DefaultIngressClass::new(Arc::new(objects));
        let annotated = json!({"metadata": {"annotations": {OLD_CLASS: "x"}}, "spec": {}});
        for (ingress, expected) in [(json!({"spec": {}}), "main"), (annotated, "")] {
            let mut request = request("ingresses", GROUP, "ns", ingress);
            plugin.admit(&mut request).await.unwrap();
            let object = request.object.unwrap();
            assert_eq!(meta::text(&object, &["spec", "ingressClassName"]), expected);
        }
    }
}
