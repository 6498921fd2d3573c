//! Priority: a pod's number comes from its class, and there is one default class.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Operation, Plugin, Request};
use crate::api::objects::SharedObjects;
use crate::object::status::Result;
use crate::object::{Value, meta};

const GROUP: &str = "scheduling.k8s.io";

/// The plug-in.
pub(super) struct Priority {
    objects: SharedObjects,
}

impl Priority {
    pub(super) fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }

    /// The default class; of several the lowest.
    fn default_class(&self) -> Option<Arc<Value>> {
        let classes = self.objects.list("priorityclasses", GROUP, "").into_iter();
        classes
            .filter(|class| class.get("globalDefault") == Some(&Value::Bool(true)))
            .min_by_key(|class| class.get("value").and_then(Value::as_i64))
    }

    fn admit_new(&self, request: &Request, pod: &mut Value) -> Result<()> {
        let name = meta::text(pod, &["spec", "priorityClassName"]).to_owned();
        let class = if name.is_empty() {
            self.default_class()
        } else {
            let class = self.objects.get("priorityclasses", GROUP, "", &name);
            Some(class.ok_or_else(|| {
                request.forbidden(format!("no PriorityClass with name {name} was found"))
            })?)
        };
        let value = class.as_ref().and_then(|class| class.get("value")).and_then(Value::as_i64);
        let value = value.unwrap_or(0);
        // Upstream defaults the policy of a class when it is read.
        let policy = class.as_ref().map(|class| meta::text(class, &["preemptionPolicy"]));
        let policy = policy.filter(|policy| !policy.is_empty()).unwrap_or("PreemptLowerPriority");
        if let Some(given) = meta::at(pod, &["spec", "priority"]).and_then(Value::as_i64)
            && given != value
        {
            return Err(request.forbidden(format!(
                "the integer value of priority ({given}) must not be provided in pod spec; \
                 priority admission controller computed {value} from the given PriorityClass name"
            )));
        }
        let given = meta::text(pod, &["spec", "preemptionPolicy"]);
        if !given.is_empty() && given != policy {
            return Err(request.forbidden(format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; \
                 priority admission controller computed {policy} from the given PriorityClass name"
            )));
        }
        if let Some(class) = &class {
            meta::set(pod, &["spec", "priorityClassName"], meta::name(class));
        }
        meta::set(pod, &["spec", "priority"], value);
        meta::set(pod, &["spec", "preemptionPolicy"], policy);
        Ok(())
    }
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn admit(&self, request: &mut Request) -> Result<()> {
        if !request.is("", "pods") {
            return Ok(());
        }
        let Some(mut pod) = request.object.take() else { return Ok(()) };
        let result = match request.operation {
            Operation::Create => self.admit_new(request, &mut pod),
            Operation::Update => {
                for field in ["priority", "preemptionPolicy"] {
                    let path = ["spec", field];
                    let old = request.old.as_deref().and_then(|old| meta::at(old, &path));
                    if let Some(old) = old
                        && meta::at(&pod, &path).is_none()
                    {
                        meta::set(&mut pod, &path, old.clone());
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        };
        request.object = Some(pod);
        result
    }

    async fn validate(&self, request: &Request) -> Result<()> {
        let Some(class) = &request.object else { return Ok(()) };
        let is_default = class.get("globalDefault") == Some(&Value::Bool(true));
        if !request.is(GROUP, "priorityclasses") || !is_default {
            return Ok(());
        }
        match self.default_class() {
            Some(other)
                if request.operation == Operation::Create
                    || meta::name(&other) != meta::name(class) =>
            {
                Err(request.forbidden(format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    meta::name(&other)
                )))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::admission::tests::{request, update};
    use crate::api::objects::MemoryObjects;
    use serde_json::json;

    fn class(name: &str, value: i64, default: bool, policy: &str) -> Value {
        let mut class =
            json!({"metadata": {"name": name}, "value": value, "globalDefault": default});
        if !policy.is_empty() {
            class["preemptionPolicy"] = json!(policy);
        }
        class
    }

    fn plugin(classes: Vec<Value>) -> Priority {
        let all = classes.into_iter().map(|class| ("priorityclasses", GROUP, class));
        Priority::new(Arc::new(MemoryObjects::with(all)))
    }

    #[tokio::test]
    async fn a_pods_number_comes_from_its_class() {
        let none = plugin(Vec::new());
        let some = plugin(vec![class("high", 1000, false, "Never"), class("mid", 10, true, "")]);
        for (plugin, spec, expected) in [
            (&none, json!({}), Ok((0, "", "PreemptLowerPriority"))),
            (&some, json!({}), Ok((10, "mid", "PreemptLowerPriority"))),
            (&some, json!({"priorityClassName": "high"}), Ok((1000, "high", "Never"))),
            (
                &some,
                json!({"priorityClassName": "low"}),
                Err("no PriorityClass with name low was found"),
            ),
            (
                &some,
                json!({"priorityClassName": "high", "priority": 1}),
                Err(
                    "the integer value of priority (1) must not be provided in pod spec; priority \
                     admission controller computed 1000 from the given PriorityClass name",
                ),
            ),
        ] {
            let pod = json!({"metadata": {"name": "p"}, "spec": spec});
            let mut request = request("pods", "", "ns", pod);
            let result = plugin.admit(&mut request).await;
            match expected {
                Ok((value, name, policy)) => {
                    result.unwrap();
                    let spec = &request.object.unwrap()["spec"];
                    assert_eq!(spec["priority"], value);
                    assert_eq!(spec["preemptionPolicy"], policy);
                    assert_eq!(meta::text(spec, &["priorityClassName"]), name);
                }
                Err(text) => assert!(result.unwrap_err().message.ends_with(text)),
            }
        }
    }

    #[tokio::test]
    async fn an_update_keeps_the_number_and_defaults_stay_one() {
        let plugin = plugin(vec![class("mid", 10, true, "")]);
        let old = json!({"metadata": {"name": "p"}, "spec": {"priority": 7}});
        let new = json!({"metadata": {"name": "p"}, "spec": {}});
        let mut request = update("pods", "", "ns", new, old);
        plugin.admit(&mut request).await.unwrap();
        assert_eq!(request.object.unwrap()["spec"]["priority"], 7);
        let second = self::request("priorityclasses", GROUP, "", class("second", 1, true, ""));
        let status = plugin.validate(&second).await.unwrap_err();
        assert!(status.message.ends_with(
            "PriorityClass mid is already marked as default. Only one default can exist"
        ));
        let same = class("mid", 10, true, "");
        let same = update("priorityclasses", GROUP, "", same.clone(), same);
        assert_eq!(plugin.validate(&same).await, Ok(()));
    }
}
