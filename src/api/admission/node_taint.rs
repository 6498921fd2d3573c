//! TaintNodesByCondition: a new node takes no pods until it is found ready.

use async_trait::async_trait;
use serde_json::json;

use super::{Operation, Plugin, Request, list, push};
use crate::object::meta;
use crate::object::status::Result;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The plug-in.
pub(super) struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    async fn admit(&self, request: &mut Request) -> Result<()> {
        if !request.is("", "nodes") || request.operation != Operation::Create {
            return Ok(());
        }
        let Some(node) = &mut request.object else { return Ok(()) };
        let has_it = list(node, &["spec", "taints"]).iter().any(|taint| {
            let text = |field: &str| meta::text(taint, &[field]);
            text("key") == NOT_READY && text("effect") == "NoSchedule"
        });
        if !has_it {
            let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
            push(node, &["spec", "taints"], taint);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::admission::tests::request;

    #[tokio::test]
    async fn a_new_node_is_tainted_once() {
        let mut request = request("nodes", "", "", json!({"metadata": {"name": "n"}}));
        for _ in 0..2 {
            TaintNodesByCondition.admit(&mut request).await.unwrap();
        }
        let node = request.object.unwrap();
        assert_eq!(node["spec"]["taints"], json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
    }
}
