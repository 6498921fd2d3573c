//! Authentication's and authorization's computed answers, as the server takes them.
//!
//! Why one file: the server knows hooks by names of resources; what answers them is spread over
//! authentication and authorization, and a reader wants to see the whole list.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::admission::{Operation, Plugin, Request};
use super::authn::Authentication;
use super::authn::review::{self_subject_review, token_review};
use super::authn::service_account::ServiceAccounts;
use super::authz::{Authorization, review};
use super::hooks::{Asked, CreateOnly, PostOnly};
use super::server::Document;
use crate::object::status::Result;
use crate::object::{Gvk, Value, meta};

/// The reviews.
#[derive(Clone, Copy, Debug)]
enum Review {
    Token,
    SelfSubject,
    SubjectAccess,
    SelfSubjectAccess,
    LocalSubjectAccess,
    SelfSubjectRules,
}

/// (group, resource) of each review.
const REVIEWS: [(&str, &str, Review); 6] = [
    ("authentication.k8s.io", "tokenreviews", Review::Token),
    ("authentication.k8s.io", "selfsubjectreviews", Review::SelfSubject),
    (review::GROUP, "subjectaccessreviews", Review::SubjectAccess),
    (review::GROUP, "selfsubjectaccessreviews", Review::SelfSubjectAccess),
    (review::GROUP, "localsubjectaccessreviews", Review::LocalSubjectAccess),
    (review::GROUP, "selfsubjectrulesreviews", Review::SelfSubjectRules),
];

struct Reviewer {
    review: Review,
    authentication: Arc<Authentication>,
    authorization: Arc<Authorization>,
}

#[async_trait]
impl CreateOnly for Reviewer {
    async fn create(&self, asked: &Asked<'_>, object: Value) -> Result<Value> {
        let authorization = &*self.authorization;
        let (user, namespace) = (&asked.attributes.user, &asked.attributes.namespace);
        match self.review {
            Review::Token => {
                let accounts = self.authentication.service_accounts();
                token_review(&self.authentication, accounts.issuer(), object)
            }
            Review::SelfSubject => Ok(self_subject_review(user, asked.now)),
            Review::SubjectAccess => review::subject_access_review(authorization, object).await,
            Review::SelfSubjectAccess => {
                review::self_subject_access_review(authorization, user, object).await
            }
            Review::LocalSubjectAccess => {
                review::local_subject_access_review(authorization, namespace, object).await
            }
            Review::SelfSubjectRules => {
                review::self_subject_rules_review(authorization, user, object)
            }
        }
    }
}

/// The kinds that are computed, by (group, resource).
pub fn create_only(
    authentication: &Arc<Authentication>,
    authorization: &Arc<Authorization>,
) -> HashMap<(String, String), Arc<dyn CreateOnly>> {
    let hook = |(group, resource, review): (&str, &str, Review)| {
        let (authentication, authorization) = (authentication.clone(), authorization.clone());
        let reviewer: Arc<dyn CreateOnly> =
            Arc::new(Reviewer { review, authentication, authorization });
        ((group.to_owned(), resource.to_owned()), reviewer)
    };
    REVIEWS.into_iter().map(hook).collect()
}

/// OpenID discovery, with which others check service-account tokens; `server` is the URL under
/// which they reach this server.
pub fn documents(authentication: &Authentication, server: &str) -> HashMap<String, Document> {
    const KEYS: &str = "/openid/v1/jwks";
    let accounts = authentication.service_accounts();
    let configuration = accounts.openid_configuration(&format!("{server}{KEYS}"));
    let document =
        |content_type, value: Value| Document { content_type, bytes: value.to_string().into() };
    HashMap::from([
        (
            "/.well-known/openid-configuration".to_owned(),
            document("application/json", configuration),
        ),
        (KEYS.to_owned(), document("application/jwk-set+json", accounts.key_set())),
    ])
}

/// `serviceaccounts/token`.
struct TokenRequests {
    accounts: Arc<ServiceAccounts>,
    admission: Vec<Arc<dyn Plugin>>,
}

#[async_trait]
impl PostOnly for TokenRequests {
    async fn post(&self, asked: &Asked<'_>, parent: &Value, body: Value) -> Result<Value> {
        let mut request = Request {
            attributes: asked.attributes.clone(),
            operation: Operation::Create,
            gvk: Gvk::new("authentication.k8s.io", "v1", "TokenRequest"),
            object: Some(body),
            old: None,
            name: meta::name(parent).to_owned(),
            dry_run: asked.dry_run,
            warnings: Vec::new(),
        };
        // A node must not get tokens of pods that run elsewhere: NodeRestriction sees the body.
        for plugin in &self.admission {
            plugin.admit(&mut request).await?;
        }
        for plugin in &self.admission {
            plugin.validate(&request).await?;
        }
        let body = request.object.take().unwrap_or_default();
        self.accounts.request_token(meta::namespace(parent), meta::name(parent), body)
    }
}

/// The subresources that are computed, by (group, resource, subresource).
pub fn post_only(
    authentication: &Authentication,
    admission: Vec<Arc<dyn Plugin>>,
) -> HashMap<(String, String, String), Arc<dyn PostOnly>> {
    let accounts = authentication.service_accounts();
    let tokens: Arc<dyn PostOnly> = Arc::new(TokenRequests { accounts, admission });
    let at = (String::new(), "serviceaccounts".to_owned(), "token".to_owned());
    HashMap::from([(at, tokens)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::admission;
    use crate::api::authn::MASTERS;
    use crate::api::authz::Authorizer;
    use crate::api::authz::node::NODES;
    use crate::api::authz::tests::{resource, user};
    use crate::api::context::RequestContext;
    use crate::api::objects::{MemoryObjects, SharedObjects};
    use crate::api::pki::tests::temporary;
    use crate::api::storage::Lookup;
    use crate::stdx::tasks::Tasks;
    use bytes::Bytes;
    use serde_json::json;

    struct Nothing;

    impl Lookup for Nothing {
        fn get(&self, _key: &[u8]) -> Option<(Bytes, u64)> {
            None
        }
        fn scan(&self, _prefix: &[u8], _each: &mut dyn FnMut(&Bytes, &Bytes) -> bool) {}
    }

    #[tokio::test]
    async fn reviews_answer_and_a_nodes_token_request_is_admitted_first() {
        let named = |name: &str| json!({"namespace": "ns", "name": name, "uid": name});
        let account = json!({"metadata": named("sa")});
        let pod = json!({"metadata": named("pod"),
            "spec": {"nodeName": "n2", "serviceAccountName": "sa"}});
        let objects: SharedObjects = Arc::new(MemoryObjects::with([
            ("namespaces", "", json!({"metadata": {"name": "ns"}})),
            ("serviceaccounts", "", account.clone()),
            ("pods", "", pod),
        ]));
        let (_dir, clock, pki) = temporary();
        let tasks = Tasks::new();
        let authn = Authentication::new(&pki, "cluster.local", objects.clone(), clock).unwrap();
        let authn = Arc::new(authn);
        let authz = Arc::new(Authorization::start(&objects, Vec::new(), &tasks));
        let authorizer: Arc<dyn Authorizer> = authz.clone();
        let reviews = create_only(&authn, &authz);
        let plugins = admission::plugins(&objects, &authorizer, &authz.rbac());
        let tokens = post_only(&authn, plugins);
        let context = RequestContext { id: String::new(), source: None, user_agent: String::new() };
        let mut attributes = resource("create", "", "serviceaccounts", "token", "ns", "sa");
        attributes.user = Arc::new(user("root", &[MASTERS]));
        let now = jiff::Timestamp::UNIX_EPOCH;
        let asked = Asked {
            attributes: &attributes,
            request: &context,
            view: &Nothing,
            now,
            dry_run: false,
        };
        let key = |resource: &str| ("authentication.k8s.io".to_owned(), resource.to_owned());
        let whoami = reviews[&key("selfsubjectreviews")].create(&asked, json!({})).await.unwrap();
        assert_eq!(whoami["status"]["userInfo"]["username"], "root");
        let at = (String::new(), "serviceaccounts".to_owned(), "token".to_owned());
        let made = tokens[&at].post(&asked, &account, json!({})).await.unwrap();
        let body = json!({"spec": {"token": made["status"]["token"]}});
        let review = reviews[&key("tokenreviews")].create(&asked, body).await.unwrap();
        assert_eq!(review["status"]["authenticated"], true);
        let mut node = attributes.clone();
        node.user = Arc::new(user("system:node:n1", &[NODES]));
        let asked = Asked { attributes: &node, ..asked };
        let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "pod", "uid": "pod"});
        let body = json!({"spec": {"boundObjectRef": bound}});
        let refused = tokens[&at].post(&asked, &account, body).await.unwrap_err();
        assert_eq!(
            refused.message,
            "serviceaccounts \"sa\" is forbidden: node requested token bound to a pod scheduled on \
             a different node"
        );
        tasks.shutdown().await;
    }
}
