//! The step that asks the authorizers, and the words of a refusal.
//!
//! Why here and for both ways in: a component in this process is authorized by the very same
//! function as a request from the network.

use crate::api::authz::Decision;
use crate::api::context::Attributes;
use crate::api::server::Api;
use crate::object::Gvr;
use crate::object::status::{Result, Status};

/// Asks each authorizer in order; the first that has an opinion decides.
pub async fn authorize(api: &Api, what: &Attributes) -> Result<()> {
    let mut reasons: Vec<String> = Vec::new();
    for authorizer in &api.authorizers {
        match authorizer.authorize(what).await {
            Decision::Allow(_) => return Ok(()),
            Decision::Deny(reason) => return Err(forbidden(what, &reason)),
            Decision::NoOpinion(reason) if reason.is_empty() => {}
            Decision::NoOpinion(reason) => reasons.push(reason),
        }
    }
    Err(forbidden(what, &reasons.join("\n")))
}

/// 403 in upstream's words.
pub fn forbidden(what: &Attributes, reason: &str) -> Status {
    let (user, verb) = (&what.user.name, &what.verb);
    let (gvr, mut text) = match &what.gvr {
        None => {
            let text = format!("User {user:?} cannot {verb} path {:?}", what.path);
            (Gvr::new("", "", ""), text)
        }
        Some(gvr) => {
            let mut resource = gvr.resource.clone();
            if !what.subresource.is_empty() {
                resource.push('/');
                resource.push_str(&what.subresource);
            }
            let place = match what.namespace.as_str() {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            let text = format!(
                "User {user:?} cannot {verb} resource {resource:?} in API group {:?} {place}",
                gvr.group
            );
            (gvr.clone(), text)
        }
    };
    text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    if !reason.is_empty() {
        text.push_str(": ");
        text.push_str(reason);
    }
    if gvr.resource.is_empty() {
        return Status::failure(403, "Forbidden", format!("forbidden: {text}"));
    }
    Status::forbidden(&gvr, &what.name, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::User;
    use std::sync::Arc;

    #[test]
    fn a_refusal_reads_as_upstreams() {
        let user = User { name: "x".to_owned(), ..User::default() };
        let mut what = Attributes {
            user: Arc::new(user),
            verb: "list".to_owned(),
            gvr: Some(Gvr::new("", "v1", "pods")),
            subresource: String::new(),
            namespace: "default".to_owned(),
            name: String::new(),
            path: "/api/v1/namespaces/default/pods".to_owned(),
            field_selector: String::new(),
            label_selector: String::new(),
        };
        assert_eq!(
            forbidden(&what, "").message,
            "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the \
             namespace \"default\""
        );
        what.gvr = None;
        what.verb = "get".to_owned();
        what.path = "/metrics".to_owned();
        assert_eq!(
            forbidden(&what, "").message,
            "forbidden: User \"x\" cannot get path \"/metrics\""
        );
    }
}
