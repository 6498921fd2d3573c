//! The four patches over plain values: JSON, merge, strategic merge, server-side apply.
//!
//! Why pure functions: the API server's write path retries a patch when the object moved under it;
//! nothing here reads a clock or a store, so a retry is only another call. What a patch made is
//! checked afterwards, by `schema::decode::value`.

pub mod apply;
pub mod fields;
pub mod json;
pub mod managed;
pub mod merge;
pub mod strategic;
mod typed;

use super::{Status, Value};

/// A value as Go's `%v` prints it, for texts that show one.
pub fn go_print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(go_print).collect::<Vec<_>>().join(" "))
        }
        Value::Object(map) => {
            let fields = map.iter().map(|(name, value)| format!("{name}:{}", go_print(value)));
            format!("map[{}]", fields.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

/// 422 for a patch that does not fit the object. Upstream keeps the reason to itself; here it is
/// a cause, so that people can find their mistake.
fn unprocessable(why: String) -> Status {
    let message = "the server rejected our request due to an error in our request";
    let mut status = Status::failure(422, "Invalid", message);
    let cause = super::status::Cause { message: why, ..Default::default() };
    status.details =
        Some(Box::new(super::status::Details { causes: vec![cause], ..Default::default() }));
    status
}
