//! DefaultTolerationSeconds: pods stay five minutes on a node that is not ready or not reachable.

use async_trait::async_trait;
use serde_json::json;

use super::{Operation, Plugin, Request, list, push};
use crate::object::meta;
use crate::object::status::Result;

/// How long, in seconds.
const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// The plug-in.
pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    async fn admit(&self, request: &mut Request) -> Result<()> {
        let is_write = matches!(request.operation, Operation::Create | Operation::Update);
        if !request.is("", "pods") || !is_write {
            return Ok(());
        }
        let Some(pod) = &mut request.object else { return Ok(()) };
        for taint in TAINTS {
            let tolerated = list(pod, &["spec", "tolerations"]).iter().any(|toleration| {
                let text = |field: &str| meta::text(toleration, &[field]);
                ["", taint].contains(&text("key")) && ["", "NoExecute"].contains(&text("effect"))
            });
            if !tolerated {
                let toleration = json!({"key": taint, "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": SECONDS});
                push(pod, &["spec", "tolerations"], toleration);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::admission::tests::request;

    #[tokio::test]
    async fn what_is_not_tolerated_already_is_tolerated_for_a_while() {
        for (given, count) in [
            (json!([]), 2),
            (json!([{"operator": "Exists"}]), 1),
            (json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute"}]), 2),
            (json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoSchedule"}]), 3),
        ] {
            let pod = json!({"spec": {"tolerations": given}});
            let mut request = request("pods", "", "ns", pod);
            DefaultTolerationSeconds.admit(&mut request).await.unwrap();
            let object = request.object.unwrap();
            assert_eq!(list(&object, &["spec", "tolerations"]).len(), count, "{object}");
        }
    }
}
