//! Bootstrap tokens: `ID.SECRET`, kept as Secrets in kube-system, with which nodes join.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Accepted, Refusal, TokenAuthenticator};
use crate::api::objects::SharedObjects;
use crate::client::User;
use crate::object::{Value, meta, time};
use crate::stdx::clock::SharedClock;

/// Judges bootstrap tokens.
pub struct BootstrapTokens {
    objects: SharedObjects,
    clock: SharedClock,
}

impl BootstrapTokens {
    /// Reads Secrets through `objects`.
    pub fn new(objects: SharedObjects, clock: SharedClock) -> Self {
        Self { objects, clock }
    }

    fn groups(&self, secret: &Value, id: &str, given: &str) -> Option<Vec<String>> {
        let data = |key: &str| {
            let text = meta::text(secret, &["data", key]);
            STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok())
        };
        let is_alive = !meta::is_deleting(secret)
            && meta::text(secret, &["type"]) == "bootstrap.kubernetes.io/token"
            && data("token-id").as_deref() == Some(id)
            && data("usage-bootstrap-authentication").as_deref() == Some("true");
        let matches =
            data("token-secret").is_some_and(|own| equal(own.as_bytes(), given.as_bytes()));
        let has_ended = data("expiration").is_some_and(|text| {
            // What can't be read counts as ended, as upstream has it.
            !text.is_empty() && time::parse(&text).is_none_or(|end| end < self.clock.now())
        });
        if !is_alive || !matches || has_ended {
            return None;
        }
        let mut groups = vec!["system:bootstrappers".to_owned()];
        for group in data("auth-extra-groups").unwrap_or_default().split(',') {
            if group.is_empty() {
                continue;
            }
            if !is_bootstrap_group(group) {
                return None;
            }
            groups.push(group.to_owned());
        }
        groups.sort();
        groups.dedup();
        Some(groups)
    }
}

/// Compares without telling by time where the difference is.
fn equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).fold(0, |seen, (left, right)| seen | (left ^ right)) == 0
}

/// `system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]`.
fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    rest.len() <= 256
        && rest.as_bytes().last().is_some_and(plain)
        && rest.bytes().all(|byte| plain(&byte) || byte == b':' || byte == b'-')
}

/// The two halves of a token of this kind.
fn halves(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

impl TokenAuthenticator for BootstrapTokens {
    fn authenticate_token(
        &self,
        token: &str,
        _audiences: &[String],
    ) -> Result<Option<Accepted>, Refusal> {
        let Some((id, given)) = halves(token) else { return Ok(None) };
        let name = format!("bootstrap-token-{id}");
        let Some(secret) = self.objects.get("secrets", "", "kube-system", &name) else {
            return Ok(None);
        };
        let Some(groups) = self.groups(&secret, id, given) else { return Ok(None) };
        let user = User { name: format!("system:bootstrap:{id}"), groups, ..User::default() };
        Ok(Some(Accepted { user, audiences: Vec::new() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::objects::MemoryObjects;
    use crate::stdx::clock::ManualClock;
    use serde_json::json;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_token_is_good_while_its_secret_says_so() {
        let encode = |text: &str| STANDARD.encode(text);
        let objects = Arc::new(MemoryObjects::with([(
            "secrets",
            "",
            json!({"type": "bootstrap.kubernetes.io/token",
                "metadata": {"namespace": "kube-system", "name": "bootstrap-token-abcdef"},
                "data": {"token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"),
                    "usage-bootstrap-authentication": encode("true"),
                    "auth-extra-groups": encode("system:bootstrappers:clusterd"),
                    "expiration": encode("2026-01-01T01:00:00Z")}}),
        )]));
        let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap());
        let tokens = BootstrapTokens::new(objects.clone(), clock.clone());
        let judge = |token: &str| tokens.authenticate_token(token, &[]).unwrap();
        let user = judge("abcdef.0123456789abcdef").unwrap().user;
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, ["system:bootstrappers", "system:bootstrappers:clusterd"]);
        assert_eq!(judge("abcdef.0123456789abcdee"), None);
        assert_eq!(judge("abcdeg.0123456789abcdef"), None);
        assert_eq!(judge("nonsense"), None);
        clock.advance(Duration::from_secs(3601));
        assert_eq!(judge("abcdef.0123456789abcdef"), None);
    }
}
