//! Secret.
//!
//! Why faults never show a value: an error text ends in logs and terminals.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::super::columns::{AGE, col, count};
use super::super::field::{Errors, Field};
use super::super::fill::{fill, map_mut};
use super::super::{names, validate};
use super::configmap::{DATA_BYTES_MAX, decoded_len, sealed};
use crate::api::kind::{Column, Strategy, Write, age};
use crate::object::status::FieldError;
use crate::object::{Value, meta};

/// The Secret's strategy.
pub(in super::super) struct Secret;

impl Strategy for Secret {
    fn default(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        fill(map, "type", "Opaque");
        // `stringData` is a way to write `data` and is never stored.
        if let Some(Value::Object(texts)) = map.remove("stringData")
            && let Some(data) = map_mut(map, "data")
        {
            for (key, text) in texts {
                let encoded = STANDARD.encode(text.as_str().unwrap_or(""));
                data.insert(key, encoded.into());
            }
        }
    }

    fn prepare_create(&self, _write: &Write<'_>, _object: &mut Value) {}

    fn splits_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, _write: &Write<'_>, object: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        check(object, &mut out);
        out
    }

    fn validate_update(&self, _write: &Write<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut out = Errors::new();
        validate::immutable_at(new, old, &["type"], &mut out);
        sealed(&Field::root(new), &Field::root(old), &["data"], &mut out);
        check(new, &mut out);
        out
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("type", meta::text(object, &["type"]).to_owned())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[col("Type"), col("Data"), AGE];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let data = count(object, &["data"]);
        vec![meta::text(object, &["type"]).into(), data.into(), age(object, now).into()]
    }
}

fn check(object: &Value, out: &mut Errors) {
    let root = Field::root(object);
    let data = root.get("data");
    let mut bytes = 0;
    for (key, value) in data.entries() {
        names::config_key(key).into_iter().for_each(|fault| {
            out.push(value.invalid_as(key, fault));
        });
        bytes += decoded_len(value.text());
    }
    if bytes > DATA_BYTES_MAX {
        out.push(data.too_long(DATA_BYTES_MAX));
    }
    let require = |key: &str, out: &mut Errors| {
        let field = data.key(key);
        if !field.is_set() {
            out.push(field.required(""));
        }
        field.is_set()
    };
    match root.get("type").text() {
        "kubernetes.io/service-account-token" => {
            let metadata = root.get("metadata");
            let annotations = metadata.get("annotations");
            let name = annotations.key("kubernetes.io/service-account.name");
            validate::required(&name, out);
        }
        "kubernetes.io/dockercfg" if require(".dockercfg", out) => {
            json_object(&data.key(".dockercfg"), out);
        }
        "kubernetes.io/dockerconfigjson" if require(".dockerconfigjson", out) => {
            json_object(&data.key(".dockerconfigjson"), out);
        }
        "kubernetes.io/basic-auth"
            if !data.key("username").is_set() && !data.key("password").is_set() =>
        {
            require("username", out);
            require("password", out);
        }
        "kubernetes.io/ssh-auth" => validate::required(&data.key("ssh-privatekey"), out),
        "kubernetes.io/tls" => {
            require("tls.crt", out);
            require("tls.key", out);
        }
        _ => {}
    }
}

fn json_object(field: &Field, out: &mut Errors) {
    let bytes = STANDARD.decode(field.text()).unwrap_or_default();
    let fault = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(_) => "json: cannot unmarshal value into a map".to_owned(),
        // Without the text around the fault: it is part of the secret.
        Err(error) => format!("invalid JSON at line {} column {}", error.line(), error.column()),
    };
    out.push(field.invalid_as("<secret contents redacted>", fault));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::testing::{created, errors_of_create, errors_of_update};
    use serde_json::json;

    #[test]
    fn string_data_becomes_data() {
        let secret = created(
            &Secret,
            json!({"data": {"a": "AAAA", "b": "AAAA"}, "stringData": {"a": "hi"}}),
        );
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "aGk=", "b": "AAAA"}}));
    }

    #[test]
    fn types_demand_their_keys_and_stay() {
        let tls = json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}});
        assert_eq!(errors_of_create(&Secret, &tls), ["data[tls.key]: Required value"]);
        let docker = json!({"type": "kubernetes.io/dockerconfigjson",
                            "data": {".dockerconfigjson": STANDARD.encode("{\"pw")}});
        let texts = errors_of_create(&Secret, &docker);
        assert!(texts[0].contains("<secret contents redacted>") && !texts[0].contains("pw"));
        let texts = errors_of_update(&Secret, "", &json!({"type": "b"}), &json!({"type": "a"}));
        assert_eq!(texts, ["type: Invalid value: \"b\": field is immutable"]);
    }
}
