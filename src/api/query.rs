//! Queries of URLs into the options of each verb, with upstream's checks.
//!
//! Why here: a component in the same process hands over the same options without a URL, so verbs
//! take the typed form only.

use super::router::percent_decode;
use crate::client::{DeleteOptions, ListOptions, Propagation, WriteOptions};
use crate::object::status::{FieldError, Result, Status};
use crate::object::{Value, meta};

/// A decoded query.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the text behind the question mark.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name, true), percent_decode(value, true))
        });
        Self(pairs.collect())
    }

    /// The first value of a parameter, or "".
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A boolean: a bare parameter is true, as upstream reads it.
    pub fn flag(&self, name: &str) -> bool {
        let mut values = self.all(name);
        values.next().is_some_and(|value| !matches!(value, "false" | "0" | "False" | "FALSE"))
    }

    /// Whether the parameter is there at all.
    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            }),
        }
    }

    /// A number below zero says, as upstream, no more than zero does.
    fn not_negative(&self, name: &str) -> Result<u64> {
        let given = self.number::<i64>(name)?.unwrap_or(0);
        Ok(given.max(0).unsigned_abs())
    }

    /// What a field selector demands `metadata.name` to be.
    pub fn selected_name(&self) -> Option<String> {
        let requirements = crate::object::selector::parse_fields(self.get("fieldSelector")).ok()?;
        let named =
            requirements.into_iter().find(|one| one.field == "metadata.name" && !one.negated)?;
        Some(named.value)
    }

    fn dry_run(&self, options: &str) -> Result<bool> {
        let mut found = false;
        for value in self.all("dryRun") {
            if value != "All" {
                let error = FieldError::not_supported("dryRun", value, &["All"]);
                return Err(invalid(options, &[error]));
            }
            found = true;
        }
        Ok(found)
    }

    /// For create, update and patch; `options` is the kind's name in errors.
    pub fn write(&self, options: &str) -> Result<WriteOptions> {
        let validation = self.get("fieldValidation");
        let known = ["", "Ignore", "Strict", "Warn"];
        let mut errors = Vec::new();
        if !known.contains(&validation) {
            errors.push(FieldError::not_supported("fieldValidation", validation, &known));
        }
        let manager = self.get("fieldManager");
        if manager.len() > FIELD_MANAGER_BYTES_MAX {
            errors.push(FieldError::too_long("fieldManager", FIELD_MANAGER_BYTES_MAX));
        }
        if !errors.is_empty() {
            return Err(invalid(options, &errors));
        }
        Ok(WriteOptions {
            dry_run: self.dry_run(options)?,
            field_manager: manager.to_owned(),
            force: self.flag("force"),
            field_validation: validation.to_owned(),
        })
    }

    /// For list, watch and deletecollection.
    pub fn list(&self) -> Result<ListOptions> {
        let options = ListOptions {
            label_selector: self.get("labelSelector").to_owned(),
            field_selector: self.get("fieldSelector").to_owned(),
            resource_version: self.get("resourceVersion").to_owned(),
            resource_version_match: self.get("resourceVersionMatch").to_owned(),
            limit: self.not_negative("limit")?,
            continue_token: self.get("continue").to_owned(),
            send_initial_events: self.flag("sendInitialEvents"),
            allow_bookmarks: self.flag("allowWatchBookmarks"),
            timeout_seconds: self.not_negative("timeoutSeconds")?,
        };
        self.check_list(&options)?;
        Ok(options)
    }

    fn check_list(&self, options: &ListOptions) -> Result<()> {
        let (version, matching) =
            (options.resource_version.as_str(), options.resource_version_match.as_str());
        let watch = self.flag("watch");
        let forbidden = |why: &str| FieldError::forbidden("resourceVersionMatch", why);
        let mut errors = Vec::new();
        if self.has("sendInitialEvents") {
            if !watch {
                let why = "sendInitialEvents is forbidden for list";
                errors.push(FieldError::forbidden("sendInitialEvents", why));
            } else if matching != "NotOlderThan" {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                errors.push(forbidden(why));
            }
        } else if !matching.is_empty() {
            if watch {
                errors.push(forbidden(
                    "resourceVersionMatch is forbidden for watch unless \
                                       sendInitialEvents is provided",
                ));
            } else if version.is_empty() {
                errors.push(forbidden(
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            } else if !options.continue_token.is_empty() {
                errors
                    .push(forbidden("resourceVersionMatch is forbidden when continue is provided"));
            } else if !["Exact", "NotOlderThan"].contains(&matching) {
                errors.push(FieldError::not_supported(
                    "resourceVersionMatch",
                    matching,
                    &["Exact", "NotOlderThan", ""],
                ));
            } else if matching == "Exact" && version == "0" {
                errors.push(forbidden(
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(invalid("ListOptions", &errors)) }
    }

    /// For delete and deletecollection: the query, overridden by a body of `DeleteOptions`.
    pub fn delete(&self, body: Option<&Value>) -> Result<DeleteOptions> {
        let Some(body) = body else {
            return Ok(DeleteOptions {
                grace_period_seconds: self.number("gracePeriodSeconds")?,
                propagation: propagation(
                    Some(self.get("propagationPolicy")),
                    self.has("orphanDependents").then(|| self.flag("orphanDependents")),
                )?,
                uid: None,
                resource_version: None,
                dry_run: self.dry_run("DeleteOptions")?,
            });
        };
        let precondition = |field| {
            let text = meta::text(body, &["preconditions", field]);
            (!text.is_empty()).then(|| text.to_owned())
        };
        let dry_run = body.get("dryRun").and_then(Value::as_array);
        let dry_run: Vec<&str> = dry_run.into_iter().flatten().filter_map(Value::as_str).collect();
        if dry_run.iter().any(|text| *text != "All") {
            let error = FieldError::not_supported("dryRun", dry_run[0], &["All"]);
            return Err(invalid("DeleteOptions", &[error]));
        }
        Ok(DeleteOptions {
            grace_period_seconds: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation: propagation(
                body.get("propagationPolicy").and_then(Value::as_str),
                body.get("orphanDependents").and_then(Value::as_bool),
            )?,
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            dry_run: !dry_run.is_empty() || self.dry_run("DeleteOptions")?,
        })
    }
}

/// Longest name of a field manager in bytes (upstream's `FieldManagerMaxLength`).
const FIELD_MANAGER_BYTES_MAX: usize = 128;

fn invalid(options: &str, errors: &[FieldError]) -> Status {
    Status::invalid("meta.k8s.io", options, "", errors)
}

fn propagation(policy: Option<&str>, orphan: Option<bool>) -> Result<Option<Propagation>> {
    let policy = policy.unwrap_or("");
    if !policy.is_empty() && orphan.is_some() {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        let error = FieldError::invalid("propagationPolicy", policy, why);
        return Err(invalid("DeleteOptions", &[error]));
    }
    Ok(match (policy, orphan) {
        ("", None) => None,
        ("", Some(true)) | ("Orphan", _) => Some(Propagation::Orphan),
        ("", Some(false)) | ("Background", _) => Some(Propagation::Background),
        ("Foreground", _) => Some(Propagation::Foreground),
        (other, _) => {
            let known = ["Background", "Foreground", "Orphan", "nil"];
            let error = FieldError::not_supported("propagationPolicy", other, &known);
            return Err(invalid("DeleteOptions", &[error]));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_are_decoded_and_flags_may_be_bare() {
        let query = Query::parse("labelSelector=a%3Db+c&watch&limit=5&x=false");
        assert_eq!(query.get("labelSelector"), "a=b c");
        assert!(query.flag("watch") && !query.flag("x") && !query.flag("y"));
        assert_eq!(query.list().unwrap().limit, 5);
        assert_eq!(Query::parse("limit=-1").list().unwrap().limit, 0);
        assert_eq!(Query::parse("limit=x").list().unwrap_err().code, 400);
    }

    #[test]
    fn wrong_options_are_refused_in_upstreams_words() {
        let error = Query::parse("dryRun=Some").write("CreateOptions").unwrap_err();
        assert_eq!(
            error.message,
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \"Some\": \
             supported values: \"All\""
        );
        let error = Query::parse("resourceVersionMatch=Exact").list().unwrap_err();
        assert_eq!(error.code, 422);
        assert!(Query::parse("resourceVersionMatch=Exact&resourceVersion=3").list().is_ok());
    }

    #[test]
    fn delete_options_come_from_body_or_query() {
        let query = Query::parse("gracePeriodSeconds=3&propagationPolicy=Orphan");
        let options = query.delete(None).unwrap();
        assert_eq!(options.grace_period_seconds, Some(3));
        assert_eq!(options.propagation, Some(Propagation::Orphan));
        let body = json!({"preconditions": {"uid": "u"}, "propagationPolicy": "Foreground"});
        let options = Query::default().delete(Some(&body)).unwrap();
        assert_eq!(options.uid.as_deref(), Some("u"));
        assert_eq!(options.propagation, Some(Propagation::Foreground));
    }
}
