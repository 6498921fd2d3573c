//! Is the image here, and if not, may and can it be fetched? In upstream's words and events.
//!
//! Why a back-off of its own: a registry that says no is asked again later and later, for each pod
//! and image, whatever the containers do meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use parking_lot::Mutex;
use serde_json::Value;

use super::engine::{Credentials, EngineError, Image};
use super::pods::{Model, Unit};
use super::status::Waiting;
use super::{Host, carried};
use crate::reconcile::{EventType, Object};
use crate::stdx::clock::SharedClock;

/// First delay after a failed pull (upstream's).
const PULL_DELAY: Duration = Duration::from_secs(10);
/// No delay is longer.
const PULL_DELAY_MAX: Duration = Duration::from_secs(300);
/// How long the plain error is shown before the back-off is.
pub const PULL_ERROR_SHOWN: Duration = Duration::from_secs(2);
/// Failed pulls that are remembered; at the bound the oldest is forgotten.
const FAILURES_MAX: usize = 4096;

/// A container's image can't be had now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the status shows.
    pub waiting: Waiting,
    /// When it makes sense to ask again; `None` when only a change of the pod helps.
    pub retry: Option<Timestamp>,
}

struct Failure {
    delay: Duration,
    since: Timestamp,
    error: String,
}

/// Failed pulls by pod and image.
pub struct Images {
    clock: SharedClock,
    failures: Mutex<BTreeMap<(String, String), Failure>>,
}

impl Images {
    /// None failed yet.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, failures: Mutex::default() }
    }

    fn back_off(&self, key: &(String, String)) -> Option<(Timestamp, String)> {
        let failures = self.failures.lock();
        let failure = failures.get(key)?;
        let until = failure.since + failure.delay;
        (self.clock.now() < until).then(|| (until, failure.error.clone()))
    }

    fn failed(&self, key: (String, String), error: String) {
        let mut failures = self.failures.lock();
        let delay = failures.get(&key).map_or(PULL_DELAY, |known| known.delay * 2);
        let since = self.clock.now();
        failures.insert(key, Failure { delay: delay.min(PULL_DELAY_MAX), since, error });
        if failures.len() > FAILURES_MAX {
            let oldest = failures.iter().min_by_key(|(_, failure)| failure.since);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                failures.remove(&oldest);
            }
        }
    }

    /// Forgets what concerns a pod.
    pub fn forget(&self, uid: &str) {
        self.failures.lock().retain(|(owner, _), _| owner != uid);
    }
}

fn waiting(reason: &str, message: impl Into<String>) -> Waiting {
    Waiting { reason: reason.to_owned(), message: message.into() }
}

/// An image's full name: with the tag that it means.
pub fn with_tag(image: &str) -> Result<String, String> {
    let invalid = || {
        Err(format!(
            "Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: \
             invalid reference format"
        ))
    };
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    let after_slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[after_slash..].rfind(':') {
        Some(at) => (&rest[..after_slash + at], Some(&rest[after_slash + at + 1..])),
        None => (rest, None),
    };
    let (domain, path) = match name.split_once('/') {
        Some((first, path)) if is_domain(first) => (Some(first), path),
        _ => (None, name),
    };
    let good_domain = domain.is_none_or(|domain| {
        domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte))
    });
    let good_tag = tag.is_none_or(|tag| {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        !tag.is_empty()
            && tag.len() <= 128
            && tag.bytes().next().is_some_and(word)
            && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
    });
    let good_digest = digest.is_none_or(|digest| {
        let hex = digest.split_once(':').map_or("", |(_, hex)| hex);
        hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    if !good_domain || !good_tag || !good_digest || !path.split('/').all(is_component) {
        return invalid();
    }
    Ok(match (tag, digest) {
        (None, None) => format!("{image}:latest"),
        _ => image.to_owned(),
    })
}

fn is_domain(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn is_component(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !text.is_empty()
        && text.bytes().next().is_some_and(plain)
        && text.bytes().next_back().is_some_and(plain)
        && text.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
}

/// The policy that applies when the API server has set none.
fn policy<'a>(unit: &'a Unit, image: &str) -> &'a str {
    match unit.spec.image_pull_policy.as_deref().filter(|policy| !policy.is_empty()) {
        Some(policy) => policy,
        None if image.ends_with(":latest") => "Always",
        None => "IfNotPresent",
    }
}

/// The image of a container, pulled if need be; events tell what happened.
pub async fn ensure(
    host: &Host,
    model: &Model,
    unit: &Unit,
    secrets: &BTreeMap<String, std::sync::Arc<core::Secret>>,
) -> Result<Image, Refused> {
    let given = unit.spec.image.as_deref().unwrap_or("");
    let tell = |kind, reason: &str, message: String| {
        host.unit_event(model, unit, kind, reason, message);
    };
    let name = match with_tag(given) {
        Ok(name) => name,
        Err(message) => {
            tell(EventType::Warning, "InspectFailed", message.clone());
            tell(EventType::Warning, "Failed", "Error: InvalidImageName".to_owned());
            return Err(Refused { waiting: waiting("InvalidImageName", message), retry: None });
        }
    };
    let policy = policy(unit, &name);
    let present = match host.engine.image(&name).await {
        Ok(present) => present,
        Err(error) => {
            let message = format!("Failed to inspect image {name:?}: {error}");
            tell(EventType::Warning, "InspectFailed", message.clone());
            let retry = Some(host.clock.now() + PULL_DELAY);
            return Err(Refused { waiting: waiting("ImageInspectError", message), retry });
        }
    };
    match (policy, present) {
        ("Never", None) => {
            let message =
                format!("Container image {given:?} is not present with pull policy of Never");
            tell(EventType::Warning, "ErrImageNeverPull", message.clone());
            tell(EventType::Warning, "Failed", "Error: ErrImageNeverPull".to_owned());
            let retry = Some(host.clock.now() + PULL_DELAY);
            Err(Refused { waiting: waiting("ErrImageNeverPull", message), retry })
        }
        ("Always", _) | (_, None) => pull(host, model, unit, &name, secrets).await,
        (_, Some(image)) => {
            let message = format!(
                "Container image {given:?} already present on machine and can be accessed by \
                 the pod"
            );
            tell(EventType::Normal, "Pulled", message);
            Ok(image)
        }
    }
}

async fn pull(
    host: &Host,
    model: &Model,
    unit: &Unit,
    name: &str,
    secrets: &BTreeMap<String, std::sync::Arc<core::Secret>>,
) -> Result<Image, Refused> {
    let tell = |kind, reason: &str, message: String| {
        host.unit_event(model, unit, kind, reason, message);
    };
    let given = unit.spec.image.as_deref().unwrap_or("");
    let key = (model.pod.uid().to_owned(), name.to_owned());
    if let Some((until, error)) = host.images.back_off(&key) {
        let message = format!("Back-off pulling image {given:?}");
        tell(EventType::Normal, "BackOff", message.clone());
        tell(EventType::Warning, "Failed", "Error: ImagePullBackOff".to_owned());
        let waiting = waiting("ImagePullBackOff", format!("{message}: {error}"));
        return Err(Refused { waiting, retry: Some(until) });
    }
    tell(EventType::Normal, "Pulling", format!("Pulling image {given:?}"));
    let started = host.clock.monotonic();
    let result = match pull_with(host, model, name, secrets).await {
        Ok(()) => match host.engine.image(name).await {
            Ok(Some(image)) => Ok(image),
            Ok(None) => Err(EngineError::NotFound("the image is gone again".to_owned())),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    match result {
        Ok(image) => {
            let took = format!("{}ms", (host.clock.monotonic() - started).as_millis());
            tell(
                EventType::Normal,
                "Pulled",
                format!(
                    "Successfully pulled image {given:?} in {took} ({took} including waiting). \
                     Image \
                 size: {} bytes.",
                    image.size
                ),
            );
            Ok(image)
        }
        Err(error) => {
            let message = format!("Failed to pull image {given:?}: {error}");
            tell(EventType::Warning, "Failed", message);
            tell(EventType::Warning, "Failed", "Error: ErrImagePull".to_owned());
            host.images.failed(key, format!("ErrImagePull: {error}"));
            // Soon the back-off is shown in its place.
            let retry = Some(host.clock.now() + PULL_ERROR_SHOWN);
            Err(Refused { waiting: waiting("ErrImagePull", error.to_string()), retry })
        }
    }
}

/// Tries each credential that fits the registry, or none.
async fn pull_with(
    host: &Host,
    model: &Model,
    name: &str,
    secrets: &BTreeMap<String, std::sync::Arc<core::Secret>>,
) -> Result<(), EngineError> {
    // The sample needs no registry: the executable carries it.
    if carried::provide_sample(&*host.engine, name).await? {
        return Ok(());
    }
    let (mut fitting, mut missing) = (Vec::new(), Vec::new());
    for reference in model.spec().image_pull_secrets.iter().flatten() {
        match secrets.get(&reference.name) {
            Some(secret) => fitting.extend(credentials(secret, registry(name))),
            None => missing.push(reference.name.clone()),
        }
    }
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not \
             succeed.",
            missing.join(", ")
        );
        host.pod_event(model, EventType::Warning, "FailedToRetrieveImagePullSecret", message);
    }
    let Some(last) = fitting.pop() else { return host.engine.pull(name, None).await };
    for one in &fitting {
        if host.engine.pull(name, Some(one)).await.is_ok() {
            return Ok(());
        }
    }
    host.engine.pull(name, Some(&last)).await
}

fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if is_domain(first) => first,
        _ => "docker.io",
    }
}

/// The host of a key of a Docker configuration: "https://index.docker.io/v1/" and the like.
fn key_registry(key: &str) -> &str {
    let bare = key.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or(bare);
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

fn credentials(secret: &core::Secret, registry: &str) -> Vec<Credentials> {
    let data = |key: &str| {
        let bytes = &secret.data.as_ref()?.get(key)?.0;
        serde_json::from_slice::<Value>(bytes).ok()
    };
    let all = data(".dockerconfigjson")
        .and_then(|config| config.get("auths").cloned())
        .or_else(|| data(".dockercfg"))
        .unwrap_or_default();
    let fits = |key: &str| {
        let host = key_registry(key);
        match host.strip_prefix("*.") {
            Some(suffix) => registry.strip_suffix(suffix).is_some_and(|rest| {
                rest.strip_suffix('.').is_some_and(|label| !label.contains('.'))
            }),
            None => host == registry,
        }
    };
    let entries = all.as_object().into_iter().flatten();
    entries.filter(|(key, _)| fits(key)).filter_map(|(key, entry)| credential(key, entry)).collect()
}

fn credential(key: &str, entry: &Value) -> Option<Credentials> {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).map(str::to_owned);
    let (mut username, mut password) = (text("username"), text("password"));
    if let Some(auth) = text("auth") {
        let decoded = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (user, pass) = decoded.split_once(':')?;
        (username, password) = (Some(user.to_owned()), Some(pass.to_owned()));
    }
    Some(Credentials { username: username?, password: password?, server: key.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn image_names_get_their_tag_or_are_refused() {
        assert_eq!(with_tag("nginx").unwrap(), "nginx:latest");
        assert_eq!(with_tag("host:5000/a/b").unwrap(), "host:5000/a/b:latest");
        assert_eq!(with_tag("a/b:v1").unwrap(), "a/b:v1");
        let digest = format!("a@sha256:{}", "0".repeat(64));
        assert_eq!(with_tag(&digest).unwrap(), digest);
        for bad in ["", "UPPER", "a:", "a/", "a b", "a@sha256:x", "-a"] {
            assert!(with_tag(bad).unwrap_err().ends_with("invalid reference format"), "{bad}");
        }
    }

    #[test]
    fn pull_secrets_are_chosen_by_registry() {
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": "dTpw"},
            "reg.example.org:5000": {"username": "a", "password": "b"},
            "*.example.com": {"username": "c", "password": "d"},
        }});
        let data = base64::engine::general_purpose::STANDARD.encode(config.to_string());
        let secret = json!({"data": {".dockerconfigjson": data}});
        let secret: core::Secret = serde_json::from_value(secret).unwrap();
        let users = |image: &str| -> Vec<String> {
            let all = credentials(&secret, registry(image));
            all.into_iter().map(|one| one.username).collect()
        };
        assert_eq!(users("busybox:1"), ["u"]);
        assert_eq!(users("reg.example.org:5000/x:1"), ["a"]);
        assert_eq!(users("a.example.com/x:1"), ["c"]);
        assert!(users("a.b.example.com/x:1").is_empty());
    }
}
