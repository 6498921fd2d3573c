//! The step behind `--as`: acting as somebody else, for who may.
//!
//! Why before authorization: from here on only the assumed user counts, as upstream does it
//! (`endpoints/filters/impersonation`).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;

use super::authorize::authorize;
use super::identity::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, add_group};
use crate::api::context::Attributes;
use crate::api::router::percent_decode;
use crate::api::server::Api;
use crate::client::User;
use crate::object::Gvr;
use crate::object::status::{Result, Status};

const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
const EXTRA: &str = "impersonate-extra-";
const GROUP: &str = "authentication.k8s.io";

/// The user to act as: `user` itself when no header asks for another.
pub async fn impersonate(api: &Api, user: User, headers: &HeaderMap) -> Result<User> {
    let Some(mut wanted) = wanted(headers)? else { return Ok(user) };
    let asker = Arc::new(user);
    for what in demands(&asker, &wanted) {
        authorize(api, &what).await?;
    }
    complete(&mut wanted);
    Ok(wanted)
}

fn wanted(headers: &HeaderMap) -> Result<Option<User>> {
    let text = |name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned()
    };
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let value = value.to_str().unwrap_or("").to_owned();
            extra.entry(percent_decode(key, false)).or_default().push(value);
        }
    }
    let groups = headers.get_all("impersonate-group").into_iter();
    let user = User {
        name: text("impersonate-user"),
        uid: text("impersonate-uid"),
        groups: groups.filter_map(|value| value.to_str().ok().map(str::to_owned)).collect(),
        extra,
    };
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if user == User::default() {
        return Ok(None);
    }
    Err(Status::internal("requested impersonation without impersonating a user"))
}

/// What `asker` must be allowed to impersonate.
fn demands(asker: &Arc<User>, wanted: &User) -> Vec<Attributes> {
    let what = |group: &str, resource: &str, subresource: &str, name: &str| Attributes {
        user: asker.clone(),
        verb: "impersonate".to_owned(),
        gvr: Some(Gvr::new(group, "v1", resource)),
        subresource: subresource.to_owned(),
        namespace: String::new(),
        name: name.to_owned(),
        path: String::new(),
        field_selector: String::new(),
        label_selector: String::new(),
    };
    let account = wanted.name.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'));
    let mut all = vec![match account {
        Some((namespace, name)) => {
            Attributes { namespace: namespace.to_owned(), ..what("", "serviceaccounts", "", name) }
        }
        None => what("", "users", "", &wanted.name),
    }];
    if !wanted.uid.is_empty() {
        all.push(what(GROUP, "uids", "", &wanted.uid));
    }
    all.extend(wanted.groups.iter().map(|group| what("", "groups", "", group)));
    for (key, values) in &wanted.extra {
        all.extend(values.iter().map(|value| what(GROUP, "userextras", key, value)));
    }
    all
}

/// The groups that go without saying.
fn complete(user: &mut User) {
    if user.groups.is_empty()
        && let Some(rest) = user.name.strip_prefix(SERVICE_ACCOUNT)
        && let Some((namespace, _)) = rest.split_once(':')
    {
        user.groups.push("system:serviceaccounts".to_owned());
        user.groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    if user.name == ANONYMOUS {
        add_group(user, UNAUTHENTICATED);
    } else if !user.groups.iter().any(|group| group == UNAUTHENTICATED) {
        add_group(user, AUTHENTICATED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_an_identity_is_demanded() {
        let mut headers = HeaderMap::new();
        headers.insert("impersonate-user", "system:serviceaccount:ns:sa".parse().unwrap());
        headers.append("impersonate-group", "g1".parse().unwrap());
        headers.append("impersonate-group", "g2".parse().unwrap());
        headers.append("impersonate-extra-a%2Fb", "x".parse().unwrap());
        let user = wanted(&headers).unwrap().unwrap();
        let asker = Arc::new(User::default());
        let texts: Vec<String> = demands(&asker, &user)
            .into_iter()
            .map(|one| {
                let gvr = one.gvr.unwrap();
                format!("{}/{}/{}/{}", one.namespace, gvr.resource, one.subresource, one.name)
            })
            .collect();
        let want = ["ns/serviceaccounts//sa", "/groups//g1", "/groups//g2", "/userextras/a/b/x"];
        assert_eq!(texts, want);
    }

    #[test]
    fn a_service_account_has_its_groups() {
        let mut user = User { name: "system:serviceaccount:a:b".to_owned(), ..User::default() };
        complete(&mut user);
        let want = ["system:serviceaccounts", "system:serviceaccounts:a", AUTHENTICATED];
        assert_eq!(user.groups, want);
    }

    #[test]
    fn groups_without_a_user_are_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("impersonate-group", "g".parse().unwrap());
        assert!(wanted(&headers).is_err());
        assert_eq!(wanted(&HeaderMap::new()).unwrap(), None);
    }
}
