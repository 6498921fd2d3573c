//! The computed answers of authentication and authorization, as the hooks that the core calls.
//!
//! Why here: `authn` and `authz` know how to judge, the core knows how to decode and encode; this
//! file is the short list that ties them.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::authn::{Authentication, review};
use super::authz::{self, Authorization};
use super::hooks::{Asked, CreateOnly, PostOnly};
use crate::object::Value;
use crate::object::status::Result;

/// A review kind, answered by one of the functions below.
struct Review {
    kind: ReviewKind,
    authentication: Arc<Authentication>,
    authorization: Arc<Authorization>,
}

#[derive(Clone, Copy)]
enum ReviewKind {
    Token,
    SelfSubject,
    Subject,
    SelfAccess,
    Local,
    Rules,
}

const REVIEWS: &[(&str, &str, ReviewKind)] = &[
    ("authentication.k8s.io", "tokenreviews", ReviewKind::Token),
    ("authentication.k8s.io", "selfsubjectreviews", ReviewKind::SelfSubject),
    (authz::review::GROUP, "subjectaccessreviews", ReviewKind::Subject),
    (authz::review::GROUP, "selfsubjectaccessreviews", ReviewKind::SelfAccess),
    (authz::review::GROUP, "localsubjectaccessreviews", ReviewKind::Local),
    (authz::review::GROUP, "selfsubjectrulesreviews", ReviewKind::Rules),
];

#[async_trait]
impl CreateOnly for Review {
    async fn create(&self, asked: &Asked<'_>, body: Value) -> Result<Value> {
        let (user, judge) = (&asked.attributes.user, &*self.authorization);
        match self.kind {
            ReviewKind::Token => {
                let issuer = self.authentication.service_accounts().issuer().to_owned();
                review::token_review(&self.authentication, &issuer, body)
            }
            ReviewKind::SelfSubject => Ok(review::self_subject_review(user, asked.now)),
            ReviewKind::Subject => authz::review::subject_access_review(judge, body).await,
            ReviewKind::SelfAccess => {
                authz::review::self_subject_access_review(judge, user, body).await
            }
            ReviewKind::Local => {
                let namespace = &asked.attributes.namespace;
                authz::review::local_subject_access_review(judge, namespace, body).await
            }
            ReviewKind::Rules => authz::review::self_subject_rules_review(judge, user, body),
        }
    }
}

/// `serviceaccounts/token`.
struct Token(Arc<Authentication>);

#[async_trait]
impl PostOnly for Token {
    async fn post(&self, asked: &Asked<'_>, _parent: &Value, body: Value) -> Result<Value> {
        let what = asked.attributes;
        self.0.service_accounts().request_token(&what.namespace, &what.name, body)
    }
}

/// Kinds that are computed, by (group, resource).
pub fn create_only(
    authentication: &Arc<Authentication>,
    authorization: &Arc<Authorization>,
) -> HashMap<(String, String), Arc<dyn CreateOnly>> {
    let hook = |kind: ReviewKind| -> Arc<dyn CreateOnly> {
        Arc::new(Review {
            kind,
            authentication: authentication.clone(),
            authorization: authorization.clone(),
        })
    };
    let key = |group: &str, resource: &str| (group.to_owned(), resource.to_owned());
    REVIEWS.iter().map(|(group, resource, kind)| (key(group, resource), hook(*kind))).collect()
}

/// Subresources that are computed, by (group, resource, subresource).
pub fn post_only(
    authentication: &Arc<Authentication>,
) -> HashMap<(String, String, String), Arc<dyn PostOnly>> {
    let key = (String::new(), "serviceaccounts".to_owned(), "token".to_owned());
    HashMap::from([(key, Arc::new(Token(authentication.clone())) as Arc<dyn PostOnly>)])
}
