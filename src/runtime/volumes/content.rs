//! Which files a configMap, secret, projected or downward volume shows: a pure function.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

use super::Tokens;
use super::atomic::File;
use crate::reconcile::Object;
use crate::runtime::env::{self, Snapshot};
use crate::runtime::pods::{Kind, Model};

/// The mode of files whose volume names none.
const DEFAULT_MODE: i32 = 0o644;
/// A token's mode when it belongs to one user or group.
const TOKEN_MODE: u32 = 0o600;

/// Files by path below the volume.
pub type Files = BTreeMap<String, File>;

/// The files of a volume, or why they can't be had (upstream's words).
pub fn files(
    model: &Model,
    volume: &core::Volume,
    snapshot: &Snapshot,
    tokens: &Tokens,
) -> Result<Files, String> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let wanted = Wanted {
            name: &source.name,
            items: source.items.as_deref(),
            optional: source.optional,
            mode: source.default_mode,
        };
        wanted.config_map(model, snapshot, &mut files)?;
    } else if let Some(source) = &volume.secret {
        let wanted = Wanted {
            name: source.secret_name.as_deref().unwrap_or(""),
            items: source.items.as_deref(),
            optional: source.optional,
            mode: source.default_mode,
        };
        wanted.secret(model, snapshot, &mut files)?;
    } else if let Some(source) = &volume.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        downward(model, items, source.default_mode, snapshot, &mut files)?;
    } else if let Some(source) = &volume.projected {
        for part in source.sources.iter().flatten() {
            let part = Part { volume: &volume.name, source: part, mode: source.default_mode };
            part.add(model, snapshot, tokens, &mut files)?;
        }
    } else {
        return Err(format!("volume {:?} has no source that this node supports", volume.name));
    }
    Ok(files)
}

/// Keys of a ConfigMap or Secret as files.
struct Wanted<'a> {
    name: &'a str,
    items: Option<&'a [core::KeyToPath]>,
    optional: Option<bool>,
    mode: Option<i32>,
}

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    own.or(default).unwrap_or(DEFAULT_MODE) as u32 & 0o7777
}

impl Wanted<'_> {
    fn config_map(
        &self,
        model: &Model,
        snapshot: &Snapshot,
        files: &mut Files,
    ) -> Result<(), String> {
        let data = snapshot.config_maps.get(self.name).map(|map| {
            let text = map.data.iter().flatten();
            let text = text.map(|(key, value)| (key.clone(), value.clone().into_bytes()));
            let binary = map.binary_data.iter().flatten();
            let binary = binary.map(|(key, value)| (key.clone(), value.0.clone()));
            text.chain(binary).collect()
        });
        self.place("configmap", model, data, files)
    }

    fn secret(&self, model: &Model, snapshot: &Snapshot, files: &mut Files) -> Result<(), String> {
        let data = snapshot.secrets.get(self.name).map(|secret| {
            let data = secret.data.iter().flatten();
            data.map(|(key, value)| (key.clone(), value.0.clone())).collect()
        });
        self.place("secret", model, data, files)
    }

    fn place(
        &self,
        kind: &str,
        model: &Model,
        data: Option<BTreeMap<String, Vec<u8>>>,
        files: &mut Files,
    ) -> Result<(), String> {
        let optional = self.optional == Some(true);
        let Some(data) = data else {
            if optional {
                return Ok(());
            }
            return Err(format!("{kind} {:?} not found", self.name));
        };
        let Some(items) = self.items.filter(|items| !items.is_empty()) else {
            for (key, bytes) in data {
                files.insert(key, File { bytes, mode: mode(None, self.mode), user: false });
            }
            return Ok(());
        };
        for item in items {
            let Some(bytes) = data.get(&item.key) else {
                if optional {
                    continue;
                }
                let place = format!("{}/{}", model.pod.namespace(), self.name);
                return Err(format!("references non-existent {kind} key: {} ({place})", item.key));
            };
            let mode = mode(item.mode, self.mode);
            files.insert(item.path.clone(), File { bytes: bytes.clone(), mode, user: false });
        }
        Ok(())
    }
}

fn downward(
    model: &Model,
    items: &[core::DownwardAPIVolumeFile],
    default: Option<i32>,
    snapshot: &Snapshot,
    files: &mut Files,
) -> Result<(), String> {
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => env::pod_field(model, &field.field_path, snapshot)?,
            (None, Some(field)) => {
                let name = field.container_name.as_deref().unwrap_or("");
                let unit = model.unit(name).ok_or_else(|| format!("container {name} not found"))?;
                env::resource_field(model, unit, field, &snapshot.node)?
            }
            (None, None) => continue,
        };
        let mode = mode(item.mode, default);
        files.insert(item.path.clone(), File { bytes: text.into_bytes(), mode, user: false });
    }
    Ok(())
}

/// One source of a projected volume.
struct Part<'a> {
    volume: &'a str,
    source: &'a core::VolumeProjection,
    mode: Option<i32>,
}

impl Part<'_> {
    fn add(
        &self,
        model: &Model,
        snapshot: &Snapshot,
        tokens: &Tokens,
        files: &mut Files,
    ) -> Result<(), String> {
        if let Some(source) = &self.source.config_map {
            let wanted = Wanted {
                name: &source.name,
                items: source.items.as_deref(),
                optional: source.optional,
                mode: self.mode,
            };
            wanted.config_map(model, snapshot, files)?;
        }
        if let Some(source) = &self.source.secret {
            let wanted = Wanted {
                name: &source.name,
                items: source.items.as_deref(),
                optional: source.optional,
                mode: self.mode,
            };
            wanted.secret(model, snapshot, files)?;
        }
        if let Some(source) = &self.source.downward_api {
            let items = source.items.as_deref().unwrap_or_default();
            downward(model, items, self.mode, snapshot, files)?;
        }
        if let Some(source) = &self.source.service_account_token {
            let key = (self.volume.to_owned(), source.path.clone());
            let Some(token) = tokens.get(&key) else {
                return Err("failed to fetch token".to_owned());
            };
            let grouped = model.spec().security_context.as_ref().and_then(|own| own.fs_group);
            let private = token_user(model).is_some() || grouped.is_some();
            let mode = if private { TOKEN_MODE } else { mode(None, self.mode) };
            let bytes = token.clone().into_bytes();
            files.insert(source.path.clone(), File { bytes, mode, user: true });
        }
        Ok(())
    }
}

/// The one user that all containers of a pod run as, if there is one: tokens are theirs alone.
pub fn token_user(model: &Model) -> Option<i64> {
    let of_pod = model.spec().security_context.as_ref().and_then(|context| context.run_as_user);
    let of = |unit: &crate::runtime::pods::Unit| {
        unit.spec.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod)
    };
    let mut users = model.units.iter().filter(|unit| unit.kind != Kind::Ephemeral).map(of);
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::pods::tests::model;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn shown(volume: Value, pod: Value) -> Result<Files, String> {
        let mut spec = json!({"containers": [{"name": "a", "securityContext": pod}]});
        spec["volumes"] = json!([volume]);
        let model = model(spec);
        let map =
            json!({"metadata": {"name": "m"}, "data": {"a": "1"}, "binaryData": {"b": "AAE="}});
        let map = Arc::new(serde_json::from_value(map).unwrap());
        let snapshot = Snapshot { config_maps: [("m".into(), map)].into(), ..Snapshot::default() };
        let tokens = [(("v".to_owned(), "token".to_owned()), "t".to_owned())].into();
        let volume = &model.spec().volumes.as_ref().unwrap()[0];
        files(&model, volume, &snapshot, &tokens)
    }

    #[test]
    fn items_choose_keys_modes_and_paths() {
        let all = shown(json!({"name": "v", "configMap": {"name": "m"}}), json!({})).unwrap();
        assert_eq!((all["a"].bytes.as_slice(), all["a"].mode), (b"1".as_slice(), 0o644));
        assert_eq!(all["b"].bytes, [0, 1]);
        let items = json!([{"key": "a", "path": "x/y", "mode": 256}]);
        let volume = json!({"name": "v", "configMap": {"name": "m", "items": items}});
        let some = shown(volume, json!({})).unwrap();
        assert_eq!(some.keys().collect::<Vec<_>>(), ["x/y"]);
        assert_eq!(some["x/y"].mode, 0o400);
        let volume = json!({"name": "v", "configMap": {"name": "no"}});
        assert_eq!(shown(volume, json!({})).unwrap_err(), "configmap \"no\" not found");
        let volume = json!({"name": "v", "secret": {"secretName": "no", "optional": true}});
        assert!(shown(volume, json!({})).unwrap().is_empty());
    }

    #[test]
    fn a_token_belongs_to_the_only_user_of_the_pod() {
        let sources = json!([{"serviceAccountToken": {"path": "token"}},
            {"downwardAPI": {"items": [
                {"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}]);
        let volume = json!({"name": "v", "projected": {"sources": sources}});
        let open = shown(volume.clone(), json!({})).unwrap();
        assert_eq!((open["token"].mode, open["n"].bytes.as_slice()), (0o644, b"web".as_slice()));
        let own = shown(volume, json!({"runAsUser": 7})).unwrap();
        assert_eq!((own["token"].mode, own["token"].user), (0o600, true));
    }
}
