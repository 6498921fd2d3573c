//! ServiceAccount: every pod has an account, and by default its token.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use serde_json::json;

use super::{Operation, Plugin, Request, list, push};
use crate::api::authz::node::{Needs, references};
use crate::api::objects::{Change, SharedObjects};
use crate::object::status::Result;
use crate::object::{Value, meta};
use crate::stdx::ids;

const DEFAULT: &str = "default";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
/// The life of the mounted token, in seconds; the odd 7 is upstream's mark for its own tokens.
const TOKEN_LIFE_SECONDS: i64 = 3607;
/// How long a new namespace's default account may be awaited.
const DEFAULT_ACCOUNT_WAIT: Duration = Duration::from_secs(2);

/// The plug-in.
pub(super) struct ServiceAccount {
    objects: SharedObjects,
}

impl ServiceAccount {
    pub(super) fn new(objects: SharedObjects) -> Self {
        Self { objects }
    }

    async fn account(&self, request: &Request, name: &str) -> Result<Arc<Value>> {
        let namespace = &request.attributes.namespace;
        if let Some(account) = self.objects.get("serviceaccounts", "", namespace, name) {
            return Ok(account);
        }
        if name == DEFAULT
            && let Some(account) = self.awaited(namespace).await
        {
            return Ok(account);
        }
        Err(request.forbidden(format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        )))
    }

    /// The default account of a namespace that may be so new that it is still being made.
    async fn awaited(&self, namespace: &str) -> Option<Arc<Value>> {
        let mut changes = self.objects.follow("serviceaccounts", "");
        let is_it = |object: &Arc<Value>| {
            meta::namespace(object) == namespace && meta::name(object) == DEFAULT
        };
        let wait = async {
            loop {
                match changes.next().await? {
                    Change::Reset(all) => {
                        if let Some(account) = all.into_iter().find(|object| is_it(object)) {
                            return Some(account);
                        }
                    }
                    Change::Put(account) if is_it(&account) => return Some(account),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(DEFAULT_ACCOUNT_WAIT, wait).await.ok().flatten()
    }
}

fn is_mirror(pod: &Value) -> bool {
    meta::annotations(pod).is_some_and(|annotations| annotations.contains_key(MIRROR))
}

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn admit(&self, request: &mut Request) -> Result<()> {
        if !request.is("", "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        let Some(mut pod) = request.object.take() else { return Ok(()) };
        let result = self.complete(request, &mut pod).await;
        request.object = Some(pod);
        result
    }

    async fn validate(&self, request: &Request) -> Result<()> {
        let Some(pod) = &request.object else { return Ok(()) };
        let new_pod = request.is("", "pods") && request.operation == Operation::Create;
        let ephemeral = request.is_sub("", "pods", "ephemeralcontainers")
            && request.operation == Operation::Update;
        if !new_pod && !ephemeral {
            return Ok(());
        }
        if new_pod && is_mirror(pod) {
            return check_mirror(pod).map_err(|why| request.forbidden(why));
        }
        let name = meta::text(pod, &["spec", "serviceAccountName"]);
        if name.is_empty() {
            let (namespace, pod) = (&request.attributes.namespace, meta::name(pod));
            let why = format!("no service account specified for pod {namespace}/{pod}");
            return Err(request.forbidden(why));
        }
        let account = self.account(request, name).await?;
        let enforced = meta::text(&account, &["metadata", "annotations", ENFORCE]);
        if ["1", "t", "T", "true", "TRUE", "True"].contains(&enforced) {
            check_secrets(&account, pod, ephemeral).map_err(|why| request.forbidden(why))?;
        }
        Ok(())
    }
}

impl ServiceAccount {
    async fn complete(&self, request: &Request, pod: &mut Value) -> Result<()> {
        if is_mirror(pod) {
            return Ok(());
        }
        let text = |field: &str| meta::text(pod, &["spec", field]).to_owned();
        let (name, old_name) = (text("serviceAccountName"), text("serviceAccount"));
        let name = [name, old_name, DEFAULT.to_owned()]
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or_default();
        meta::set(pod, &["spec", "serviceAccountName"], name.as_str());
        // The field's former name is served beside it.
        meta::set(pod, &["spec", "serviceAccount"], name.as_str());
        let account = self.account(request, &name).await?;
        let automount = meta::at(pod, &["spec", "automountServiceAccountToken"])
            .or_else(|| account.get("automountServiceAccountToken"))
            .and_then(Value::as_bool)
            .unwrap_or(true);
        if automount {
            mount_token(pod);
        }
        if list(pod, &["spec", "imagePullSecrets"]).is_empty() {
            let secrets: Vec<Value> = list(&account, &["imagePullSecrets"])
                .iter()
                .map(|secret| json!({"name": meta::text(secret, &["name"])}))
                .collect();
            if !secrets.is_empty() {
                meta::set(pod, &["spec", "imagePullSecrets"], secrets);
            }
        }
        Ok(())
    }
}

fn mount_token(pod: &mut Value) {
    let existing = list(pod, &["spec", "volumes"])
        .iter()
        .map(|volume| meta::text(volume, &["name"]))
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let has_volume = existing.is_some();
    let volume =
        existing.unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", ids::suffix(ids::SUFFIX_LENGTH)));
    let mut mounted = false;
    for containers in ["initContainers", "containers"] {
        let Some(Value::Array(containers)) = meta::at_mut(pod, &["spec"])
            .and_then(Value::as_object_mut)
            .and_then(|spec| spec.get_mut(containers))
        else {
            continue;
        };
        for container in containers {
            let has_mount = list(container, &["volumeMounts"])
                .iter()
                .any(|mount| meta::text(mount, &["mountPath"]) == MOUNT_PATH);
            if !has_mount {
                let mount = json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH});
                push(container, &["volumeMounts"], mount);
                mounted = true;
            }
        }
    }
    if mounted && !has_volume {
        let field = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
        let sources = json!([
            {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_LIFE_SECONDS}},
            {"configMap": {"name": "kube-root-ca.crt",
                "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
        ]);
        let projected = json!({"defaultMode": 0o644, "sources": sources});
        push(pod, &["spec", "volumes"], json!({"name": volume, "projected": projected}));
    }
}

fn check_mirror(pod: &Value) -> std::result::Result<(), String> {
    if !meta::text(pod, &["spec", "serviceAccountName"]).is_empty() {
        return Err("a mirror pod may not reference service accounts".to_owned());
    }
    if references(pod).iter().any(|(needs, _)| *needs == Needs::Secret) {
        return Err("a mirror pod may not reference secrets".to_owned());
    }
    let projects_token = list(pod, &["spec", "volumes"])
        .iter()
        .flat_map(|volume| list(volume, &["projected", "sources"]))
        .any(|source| source.get("serviceAccountToken").is_some_and(Value::is_object));
    if projects_token {
        return Err("a mirror pod may not use ServiceAccountToken volume projections".to_owned());
    }
    Ok(())
}

/// Whether the pod uses only secrets that its account lists.
fn check_secrets(account: &Value, pod: &Value, ephemeral: bool) -> std::result::Result<(), String> {
    let names = |path: &[&str]| -> Vec<&str> {
        list(account, path).iter().map(|one| meta::text(one, &["name"])).collect()
    };
    let (mountable, who) = (names(&["secrets"]), meta::name(account));
    let refused = |what: String, secret: &str| {
        Err(format!(
            "{what} referencing secret.secretName=\"{secret}\" is not allowed because service \
             account {who} does not reference that secret"
        ))
    };
    let kinds: &[(&str, &str)] = if ephemeral {
        &[("ephemeralContainers", "ephemeral container")]
    } else {
        &[("initContainers", "init container"), ("containers", "container")]
    };
    if !ephemeral {
        for volume in list(pod, &["spec", "volumes"]) {
            let secret = meta::text(volume, &["secret", "secretName"]);
            if !secret.is_empty() && !mountable.contains(&secret) {
                return Err(format!(
                    "volume with secret.secretName=\"{secret}\" is not allowed because service \
                     account {who} does not reference that secret"
                ));
            }
        }
    }
    for (field, kind) in kinds {
        for container in list(pod, &["spec", field]) {
            let name = meta::text(container, &["name"]);
            for env in list(container, &["env"]) {
                let secret = meta::text(env, &["valueFrom", "secretKeyRef", "name"]);
                if !secret.is_empty() && !mountable.contains(&secret) {
                    let variable = meta::text(env, &["name"]);
                    return refused(format!("{kind} {name} with envVar {variable}"), secret);
                }
            }
            for source in list(container, &["envFrom"]) {
                let secret = meta::text(source, &["secretRef", "name"]);
                if !secret.is_empty() && !mountable.contains(&secret) {
                    return refused(format!("{kind} {name} with envFrom"), secret);
                }
            }
        }
    }
    let pulls = names(&["imagePullSecrets"]);
    for (at, secret) in list(pod, &["spec", "imagePullSecrets"]).iter().enumerate() {
        let secret = meta::text(secret, &["name"]);
        if !ephemeral && !pulls.contains(&secret) {
            return Err(format!(
                "imagePullSecrets[{at}].name=\"{secret}\" is not allowed because service account \
                 {who} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::admission::tests::request;
    use crate::api::objects::MemoryObjects;

    fn account(name: &str, more: Value) -> Value {
        let mut account = json!({"metadata": {"namespace": "ns", "name": name}});
        if let (Some(account), Value::Object(more)) = (account.as_object_mut(), more) {
            account.extend(more);
        }
        account
    }

    fn plugin(accounts: Vec<Value>) -> (Arc<MemoryObjects>, ServiceAccount) {
        let all = accounts.into_iter().map(|account| ("serviceaccounts", "", account));
        let objects = Arc::new(MemoryObjects::with(all));
        (objects.clone(), ServiceAccount::new(objects))
    }

    async fn admit(plugin: &ServiceAccount, spec: Value) -> Result<Value> {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec});
        let mut request = request("pods", "", "ns", pod);
        plugin.admit(&mut request).await?;
        plugin.validate(&request).await?;
        Ok(request.object.unwrap_or_default()["spec"].clone())
    }

    #[tokio::test]
    async fn a_pod_gets_its_token_in_upstreams_shape() {
        let pulls = json!({"imagePullSecrets": [{"name": "registry"}]});
        let (_, plugin) = plugin(vec![account("default", pulls)]);
        let spec = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]});
        let spec = admit(&plugin, spec).await.unwrap();
        assert_eq!(spec["serviceAccountName"], "default");
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "registry"}]));
        let volume = &spec["volumes"][0];
        let name = volume["name"].as_str().unwrap();
        assert_eq!(name.len(), VOLUME_PREFIX.len() + 5);
        assert_eq!(
            volume["projected"],
            json!({"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}],
                    "name": "kube-root-ca.crt"}},
                {"downwardAPI": {"items": [{"fieldRef": {"apiVersion": "v1",
                    "fieldPath": "metadata.namespace"}, "path": "namespace"}]}},
            ]})
        );
        for container in ["containers", "initContainers"] {
            let mounts = &spec[container][0]["volumeMounts"];
            let wanted = json!([{"name": name, "readOnly": true, "mountPath": MOUNT_PATH}]);
            assert_eq!(*mounts, wanted, "{container}");
        }
        let again = admit(&plugin, spec.clone()).await.unwrap();
        assert_eq!(again, spec, "a second pass changes nothing");
    }

    #[tokio::test]
    async fn the_pods_wish_on_tokens_goes_before_its_accounts() {
        let (_, plugin) =
            plugin(vec![account("quiet", json!({"automountServiceAccountToken": false}))]);
        for (wish, mounted) in [(json!(null), false), (json!(true), true), (json!(false), false)] {
            let mut spec = json!({"serviceAccountName": "quiet", "containers": [{"name": "c"}]});
            if !wish.is_null() {
                spec["automountServiceAccountToken"] = wish;
            }
            let spec = admit(&plugin, spec).await.unwrap();
            assert_eq!(spec.get("volumes").is_some(), mounted);
        }
    }

    #[tokio::test]
    async fn a_missing_account_and_a_foreign_secret_are_refused() {
        let enforced = json!({"metadata": {"namespace": "ns", "name": "strict",
            "annotations": {ENFORCE: "true"}}, "secrets": [{"name": "own"}]});
        let (_, plugin) = plugin(vec![enforced]);
        let missing = admit(&plugin, json!({"serviceAccountName": "x"})).await.unwrap_err();
        assert_eq!(
            missing.message,
            "pods \"p\" is forbidden: error looking up service account ns/x: serviceaccount \"x\" \
             not found"
        );
        let with = |secret: &str| {
            json!({"serviceAccountName": "strict",
                "volumes": [{"name": "v", "secret": {"secretName": secret}}]})
        };
        assert!(admit(&plugin, with("own")).await.is_ok());
        let foreign = admit(&plugin, with("other")).await.unwrap_err();
        assert!(foreign.message.contains("does not reference that secret"), "{foreign}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_namespaces_default_account_is_awaited_not_polled_for() {
        let (objects, plugin) = plugin(Vec::new());
        let made = async {
            tokio::task::yield_now().await;
            objects.put("serviceaccounts", "", account("default", json!({})));
        };
        let (admitted, ()) = tokio::join!(admit(&plugin, json!({"containers": []})), made);
        assert_eq!(admitted.unwrap()["serviceAccountName"], "default");
        let (_, empty) = self::plugin(Vec::new());
        assert_eq!(admit(&empty, json!({})).await.unwrap_err().code, 403);
    }
}
