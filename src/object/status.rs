//! `metav1.Status`: the one shape of every error, with upstream's wording.
//!
//! Why here and only here: users' tools match on reason, code and text (apimachinery
//! `api/errors/errors.go`); a second place would drift.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Gvr, Value};

/// An answer that is not an object: a failure, or the result of a delete.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// "Failure" or "Success".
    #[serde(default)]
    pub status: String,
    /// What went wrong, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// A word for programs, as in "NotFound".
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// More for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
    /// The HTTP status.
    #[serde(default)]
    pub code: u16,
    /// The `continue` token of an expired list (`metadata.continue`), if any.
    #[serde(skip)]
    pub continue_token: Option<String>,
}

/// `StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its kind, or the resource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// One entry for each wrong field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again, in seconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

/// `StatusCause`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// As in "FieldValueInvalid".
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The field's path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The result of anything that may be refused.
pub type Result<T> = std::result::Result<T, Status>;

impl Status {
    /// A failure with the given code, reason and message.
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.to_owned(),
            code,
            ..Self::default()
        }
    }

    /// The answer of a delete that left nothing: kind and uid of what was deleted.
    pub fn deleted(gvr: &Gvr, name: &str, uid: &str) -> Self {
        let details = Details {
            name: name.to_owned(),
            group: gvr.group.clone(),
            kind: gvr.resource.clone(),
            uid: uid.to_owned(),
            ..Details::default()
        };
        Self {
            status: "Success".to_owned(),
            code: 200,
            details: Some(Box::new(details)),
            ..Self::default()
        }
    }

    fn about(mut self, gvr: &Gvr, name: &str) -> Self {
        let details = self.details.get_or_insert_with(Box::default);
        details.name = name.to_owned();
        details.group = gvr.group.clone();
        details.kind = gvr.resource.clone();
        self
    }

    /// 404 for an object.
    pub fn not_found(gvr: &Gvr, name: &str) -> Self {
        let message = format!("{} {name:?} not found", gvr.group_resource());
        Self::failure(404, "NotFound", message).about(gvr, name)
    }

    /// 404 for a path that nothing serves.
    pub fn no_such_path() -> Self {
        let message = "the server could not find the requested resource";
        let mut status = Self::failure(404, "NotFound", message);
        status.details = Some(Box::default());
        status
    }

    /// 409: a create found the name taken.
    pub fn already_exists(gvr: &Gvr, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", gvr.group_resource());
        Self::failure(409, "AlreadyExists", message).about(gvr, name)
    }

    /// 409: the object is not what the caller thought it is.
    pub fn conflict(gvr: &Gvr, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", gvr.group_resource());
        Self::failure(409, "Conflict", message).about(gvr, name)
    }

    /// 409 in the words of a stale `resourceVersion`.
    pub fn stale(gvr: &Gvr, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        Self::conflict(gvr, name, why)
    }

    /// 403 for an object; `name` may be "".
    pub fn forbidden(gvr: &Gvr, name: &str, why: &str) -> Self {
        let subject = if name.is_empty() {
            format!("{} is forbidden: {why}", gvr.group_resource())
        } else {
            format!("{} {name:?} is forbidden: {why}", gvr.group_resource())
        };
        Self::failure(403, "Forbidden", subject).about(gvr, name)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::failure(401, "Unauthorized", "Unauthorized")
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message)
    }

    /// 405 for a verb that a resource does not have.
    pub fn method_not_supported(gvr: &Gvr, verb: &str) -> Self {
        let message =
            format!("{verb} is not supported on resources of kind {:?}", gvr.group_resource());
        Self::failure(405, "MethodNotAllowed", message).about(gvr, "")
    }

    /// 406.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::failure(406, "NotAcceptable", message)
    }

    /// 410: the revision asked for is no longer known.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, "Expired", message)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::failure(413, "RequestEntityTooLarge", message)
    }

    /// 415.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::failure(415, "UnsupportedMediaType", message)
    }

    /// 422: one or more fields are wrong. `kind` is the kind's name, as in "Pod".
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let shown = match errors {
            [one] => one.to_string(),
            many => {
                // Upstream joins unique texts in brackets (util/errors aggregate).
                let mut texts: Vec<String> = Vec::new();
                for text in many.iter().map(ToString::to_string) {
                    if !texts.contains(&text) {
                        texts.push(text);
                    }
                }
                match texts.as_slice() {
                    [one] => one.clone(),
                    _ => format!("[{}]", texts.join(", ")),
                }
            }
        };
        let full = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let message = format!("{full} {name:?} is invalid: {shown}");
        let mut status = Self::failure(422, "Invalid", message);
        status.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes: errors.iter().map(FieldError::cause).collect(),
            ..Details::default()
        }));
        status
    }

    /// 429 with a time to wait.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::failure(429, "TooManyRequests", message);
        status.details = Some(Box::new(Details { retry_after_seconds, ..Details::default() }));
        status
    }

    /// 500.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        let text = error.to_string();
        let message = format!("Internal error occurred: {text}");
        let mut status = Self::failure(500, "InternalError", message);
        let cause = Cause { message: text, ..Cause::default() };
        status.details = Some(Box::new(Details { causes: vec![cause], ..Details::default() }));
        status
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, "ServiceUnavailable", message)
    }

    /// 504.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::failure(504, "Timeout", message)
    }

    /// Whether this is a 404.
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// Whether a create found the name taken.
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    /// Whether an update was based on an old revision.
    pub fn is_conflict(&self) -> bool {
        self.code == 409 && self.reason == "Conflict"
    }

    /// Whether a watch or list asked for a revision that is gone.
    pub fn is_expired(&self) -> bool {
        self.code == 410
    }

    /// The HTTP status code.
    pub fn http(&self) -> StatusCode {
        StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The object as it goes over the wire.
    pub fn to_value(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value["apiVersion"] = json!("v1");
        value["kind"] = json!("Status");
        value["metadata"] = match &self.continue_token {
            Some(token) => json!({ "continue": token }),
            None => json!({}),
        };
        value
    }
}

/// What is wrong with one field (apimachinery `util/validation/field`).
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// The path, as in `spec.containers[0].name`.
    pub field: String,
    /// The kind of fault.
    pub fault: Fault,
    /// The value found, shown in most texts.
    pub value: Value,
    /// What would be right.
    pub detail: String,
}

/// The kinds of fault a field can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A value must be given.
    Required,
    /// The value is malformed or not allowed.
    Invalid,
    /// As `Invalid`, without the value in the text.
    InvalidOmittingValue,
    /// The value is used already.
    Duplicate,
    /// What the value names does not exist.
    NotFound,
    /// The value is not one of a list.
    NotSupported,
    /// The value is not allowed here.
    Forbidden,
    /// The text has too many bytes.
    TooLong,
    /// The list has too many items.
    TooMany,
    /// Something failed on our side.
    Internal,
    /// The value has the wrong type.
    TypeInvalid,
}

impl FieldError {
    fn new(
        fault: Fault,
        field: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), fault, value: value.into(), detail: detail.into() }
    }
    /// A value must be given.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Fault::Required, field, Value::Null, detail)
    }
    /// The value is malformed or not allowed.
    pub fn invalid(
        field: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(Fault::Invalid, field, value, detail)
    }
    /// The value is malformed or not allowed, and not worth showing (upstream's `OmitValueType`).
    pub fn invalid_omitting_value(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Fault::InvalidOmittingValue, field, Value::Null, detail)
    }
    /// The value is used already.
    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(Fault::Duplicate, field, value, "")
    }
    /// What the value names does not exist.
    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(Fault::NotFound, field, value, "")
    }
    /// The value is not one of `allowed` (listed in the given order, upstream sorts them).
    pub fn not_supported(
        field: impl Into<String>,
        value: impl Into<Value>,
        allowed: &[&str],
    ) -> Self {
        let mut names: Vec<String> = allowed.iter().map(|name| format!("{name:?}")).collect();
        names.sort();
        let detail = format!("supported values: {}", names.join(", "));
        Self::new(Fault::NotSupported, field, value, detail)
    }
    /// The value is not allowed here.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Fault::Forbidden, field, Value::Null, detail)
    }
    /// The text has more than `max` bytes.
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self::new(Fault::TooLong, field, Value::Null, detail)
    }
    /// The list has more than `max` items.
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        let detail = format!("must have at most {max} items");
        Self::new(Fault::TooMany, field, actual, detail)
    }
    /// The value has the wrong type.
    pub fn type_invalid(
        field: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(Fault::TypeInvalid, field, value, detail)
    }

    fn body(&self) -> String {
        let name = match self.fault {
            Fault::Required => "Required value",
            Fault::Invalid | Fault::TypeInvalid | Fault::InvalidOmittingValue => "Invalid value",
            Fault::Duplicate => "Duplicate value",
            Fault::NotFound => "Not found",
            Fault::NotSupported => "Unsupported value",
            Fault::Forbidden => "Forbidden",
            Fault::TooLong => "Too long",
            Fault::TooMany => "Too many",
            Fault::Internal => "Internal error",
        };
        let shows_value = !matches!(
            self.fault,
            Fault::Required
                | Fault::Forbidden
                | Fault::TooLong
                | Fault::Internal
                | Fault::InvalidOmittingValue
        );
        let mut text = name.to_owned();
        if shows_value {
            let value = match &self.value {
                Value::Null => "null".to_owned(),
                Value::String(text) => format!("{text:?}"),
                other => other.to_string(),
            };
            text.push_str(": ");
            text.push_str(&value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    fn cause(&self) -> Cause {
        let reason = match self.fault {
            Fault::Required => "FieldValueRequired",
            Fault::Invalid | Fault::InvalidOmittingValue => "FieldValueInvalid",
            Fault::Duplicate => "FieldValueDuplicate",
            Fault::NotFound => "FieldValueNotFound",
            Fault::NotSupported => "FieldValueNotSupported",
            Fault::Forbidden => "FieldValueForbidden",
            Fault::TooLong => "FieldValueTooLong",
            Fault::TooMany => "FieldValueTooMany",
            Fault::Internal => "InternalError",
            Fault::TypeInvalid => "FieldValueTypeInvalid",
        };
        Cause { reason: reason.to_owned(), message: self.body(), field: self.field.clone() }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.field, self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstreams() {
        let pods = Gvr::new("", "v1", "pods");
        assert_eq!(Status::not_found(&pods, "x").message, "pods \"x\" not found");
        let errors = [FieldError::required("spec.containers", "")];
        assert_eq!(
            Status::invalid("", "Pod", "x", &errors).message,
            "Pod \"x\" is invalid: spec.containers: Required value"
        );
        let errors = [
            FieldError::not_supported("spec.type", "x", &["B", "A"]),
            FieldError::invalid("spec.n", -1, "must be greater than or equal to 0"),
        ];
        assert_eq!(
            Status::invalid("apps", "Deployment", "d", &errors).message,
            "Deployment.apps \"d\" is invalid: [spec.type: Unsupported value: \"x\": supported \
             values: \"A\", \"B\", spec.n: Invalid value: -1: must be greater than or equal to 0]"
        );
    }

    #[test]
    fn the_wire_form_has_kind_and_code() {
        let value = Status::unauthorized().to_value();
        assert_eq!(value["kind"], "Status");
        assert_eq!(value["code"], 401);
        assert_eq!(value["status"], "Failure");
    }
}
