//! What a person reads when something is refused, in kubectl's words.
//!
//! Why its own words: scripts match on them (`Error from server (NotFound): …`).

use std::io;

use crate::object::status::Status;

/// A refusal together with the file whose object was refused.
#[derive(Debug, thiserror::Error)]
#[error("error when {verb} {source_name:?}: {status}")]
pub struct InFile {
    /// As in "creating".
    pub verb: &'static str,
    /// The file.
    pub source_name: String,
    /// The refusal.
    pub status: Status,
}

/// The text for standard error; `None` when there is nobody left to read it.
pub fn text(error: &anyhow::Error) -> Option<String> {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<io::Error>().is_some_and(broken) {
        return None;
    }
    if let Some(status) = error.downcast_ref::<Status>() {
        return Some(of_status(status, &status.message));
    }
    if let Some(refused) = error.downcast_ref::<InFile>() {
        return Some(of_status(&refused.status, &refused.to_string()));
    }
    Some(format!("error: {error:#}"))
}

/// A server's refusal; `message` is its message, possibly with more before it.
pub fn of_status(status: &Status, message: &str) -> String {
    if message.starts_with("Unable to connect") {
        return message.to_owned();
    }
    match status.reason.as_str() {
        "Invalid" if message == status.message => invalid(status),
        "Unauthorized" => format!("error: You must be logged in to the server ({message})"),
        "" => format!("Error from server: {message}"),
        reason => format!("Error from server ({reason}): {message}"),
    }
}

fn invalid(status: &Status) -> String {
    let mut text = "The request is invalid".to_owned();
    let Some(details) = &status.details else {
        return format!("{text}: {}", status.message);
    };
    if !details.kind.is_empty() || !details.name.is_empty() {
        text = format!("The {} {:?} is invalid", details.kind, details.name);
    } else if details.causes.is_empty() {
        return format!("{text}: {}", status.message);
    }
    let mut causes: Vec<String> = Vec::new();
    for cause in &details.causes {
        let line = format!("{}: {}", cause.field, cause.message);
        if !causes.contains(&line) {
            causes.push(line);
        }
    }
    match causes.as_slice() {
        [] => text,
        [one] => format!("{text}: {one}"),
        many => format!("{text}: \n* {}", many.join("\n* ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Gvr;
    use crate::object::status::FieldError;

    #[test]
    fn refusals_read_as_kubectls() {
        let pods = Gvr::new("", "v1", "pods");
        let error = anyhow::Error::new(Status::not_found(&pods, "x"));
        assert_eq!(text(&error).unwrap(), "Error from server (NotFound): pods \"x\" not found");
        let faults = [FieldError::required("spec.containers", "")];
        let error = anyhow::Error::new(Status::invalid("", "Pod", "x", &faults));
        assert_eq!(
            text(&error).unwrap(),
            "The Pod \"x\" is invalid: spec.containers: Required value"
        );
        let error = anyhow::anyhow!("timed out");
        assert_eq!(text(&error).unwrap(), "error: timed out");
    }

    #[test]
    fn a_closed_pipe_is_met_with_silence() {
        let error = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(text(&error), None);
    }
}
