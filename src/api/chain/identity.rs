//! The step that turns a connection's certificate or a request's token into a user.
//!
//! Why anonymous only for health and version: everything else is for somebody; a missing or bad
//! credential must read 401, not 403.

use http::{HeaderMap, header};

use super::Peer;
use crate::api::authn::Credentials;
use crate::api::server::Api;
use crate::client::User;
use crate::object::status::{Result, Status};

/// The user of a request without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// Its group.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group of everybody else.
pub const AUTHENTICATED: &str = "system:authenticated";

/// Paths (and what lies below them) that need no credentials.
const OPEN_PATHS: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// Who sends this request?
pub async fn identify(api: &Api, peer: &Peer, headers: &HeaderMap, path: &str) -> Result<User> {
    let credentials =
        Credentials { certificates: peer.certificates.clone(), bearer: bearer(headers) };
    let shown = credentials.bearer.is_some() || !credentials.certificates.is_empty();
    if shown {
        let found = api.authenticator.authenticate(&credentials).await;
        let mut user = found?.ok_or_else(Status::unauthorized)?;
        add_group(&mut user, AUTHENTICATED);
        return Ok(user);
    }
    if !is_open(path) {
        return Err(Status::unauthorized());
    }
    Ok(User {
        name: ANONYMOUS.to_owned(),
        groups: vec![UNAUTHENTICATED.to_owned()],
        ..User::default()
    })
}

/// Adds a group unless the user has it.
pub fn add_group(user: &mut User, group: &str) {
    if !user.groups.iter().any(|have| have == group) {
        user.groups.push(group.to_owned());
    }
}

fn is_open(path: &str) -> bool {
    OPEN_PATHS.iter().any(|open| {
        path.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The bearer token of the header, or of a WebSocket's subprotocol (browsers can set no header).
fn bearer(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
            .then(|| token.to_owned());
    }
    const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
    let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    let encoded = protocols
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .find_map(|name| name.trim().strip_prefix(PREFIX))?;
    use base64::Engine;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    String::from_utf8(engine.decode(encoded.trim_end_matches('=')).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_from_the_header_or_a_subprotocol() {
        let with = |name: header::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            bearer(&headers)
        };
        assert_eq!(with(header::AUTHORIZATION, "Bearer abc").as_deref(), Some("abc"));
        assert_eq!(with(header::AUTHORIZATION, "bearer  abc").as_deref(), Some("abc"));
        assert_eq!(with(header::AUTHORIZATION, "Basic abc"), None);
        let text = "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj";
        assert_eq!(with(header::SEC_WEBSOCKET_PROTOCOL, text).as_deref(), Some("abc"));
    }

    #[test]
    fn only_health_and_version_are_open() {
        for (path, open) in
            [("/healthz", true), ("/readyz/etcd", true), ("/versions", false), ("/api", false)]
        {
            assert_eq!(is_open(path), open, "{path}");
        }
    }
}
