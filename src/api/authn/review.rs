//! TokenReview and SelfSubjectReview: answers to "who is this?", never stored.

use serde_json::json;

use super::Authentication;
use crate::client::User;
use crate::object::status::Result;
use crate::object::{Map, Status, Value, meta, time};

/// `UserInfo`, as reviews show it.
pub fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    info.insert("username".to_owned(), json!(user.name));
    if !user.uid.is_empty() {
        info.insert("uid".to_owned(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(info)
}

/// Answers a POST of a TokenReview.
pub fn token_review(authentication: &Authentication, issuer: &str, body: Value) -> Result<Value> {
    let token = meta::text(&body, &["spec", "token"]);
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let asked: Vec<String> = meta::at(&body, &["spec", "audiences"])
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    let wanted = if asked.is_empty() { vec![issuer.to_owned()] } else { asked };
    let status = match authentication.token(token, &wanted) {
        Err(refusal) => json!({"user": {}, "error": refusal.0}),
        Ok(accepted) => {
            // A token that knows no audiences is for the API server.
            let shared = match accepted.audiences.as_slice() {
                [] => wanted.iter().filter(|name| *name == issuer).cloned().collect(),
                some => some.to_vec(),
            };
            if shared.is_empty() {
                return Err(Status::internal("error validating audiences"));
            }
            let user = user_info(&accepted.user);
            json!({"authenticated": true, "user": user, "audiences": shared})
        }
    };
    let mut answer = body;
    answer["status"] = status;
    Ok(answer)
}

/// Answers a POST of a SelfSubjectReview.
pub fn self_subject_review(user: &User, now: jiff::Timestamp) -> Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "SelfSubjectReview",
        "metadata": {"creationTimestamp": time::seconds(now)},
        "status": {"userInfo": user_info(user)},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::objects::MemoryObjects;
    use crate::api::pki::tests::temporary;
    use std::sync::Arc;

    #[test]
    fn a_review_tells_the_user_or_the_reason() {
        let (_dir, clock, pki) = temporary();
        let account = json!({"metadata": {"namespace": "ns", "name": "sa", "uid": "u"}});
        let objects = Arc::new(MemoryObjects::with([("serviceaccounts", "", account)]));
        let all = Authentication::new(&pki, "cluster.local", objects.clone(), clock).unwrap();
        let accounts = all.service_accounts();
        let made = accounts.request_token("ns", "sa", json!({})).unwrap();
        let body = json!({"spec": {"token": made["status"]["token"]}});
        let review = |body: &Value| token_review(&all, accounts.issuer(), body.clone());
        let status = review(&body).unwrap()["status"].clone();
        assert_eq!(status["authenticated"], true);
        assert_eq!(status["user"]["username"], "system:serviceaccount:ns:sa");
        assert_eq!(status["audiences"][0], accounts.issuer());
        let other = json!({"spec": {"token": made["status"]["token"], "audiences": ["vault"]}});
        assert!(
            review(&other).unwrap()["status"]["error"]
                .as_str()
                .unwrap()
                .contains("is invalid for the target audiences")
        );
        objects.remove("serviceaccounts", "", "ns", "sa");
        assert_eq!(review(&body).unwrap()["status"]["authenticated"], Value::Null);
        assert_eq!(review(&json!({})).unwrap_err().code, 400);
    }
}
