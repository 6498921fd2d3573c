//! LIST: a page of a collection, as stored bytes.
//!
//! Why views: each page of a list is cut from the state of one revision, so a client that pages
//! sees one moment, for as long as history reaches.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::convert;
use super::filter::Filter;
use crate::api::server::Call;
use crate::client::ListOptions;
use crate::object::status::{Result, Status};
use crate::store::View;

/// A page of a collection.
pub struct Page {
    /// The revision that the whole list shows.
    pub revision: u64,
    /// "" on the last page.
    pub continue_token: String,
    /// How many objects follow, where that is known cheaply.
    pub remaining: Option<u64>,
    /// The objects, in the version asked for.
    pub items: Vec<Bytes>,
}

/// What a `continue` token says (upstream's form).
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";
const TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list \
    result. You can start a new list without the continue parameter, or use the continue token in \
    this response to retrieve the remainder of the results. Continuing with the provided token \
    results in an inconsistent list - objects that were created, modified, or deleted between the \
    time the first chunk was returned and now may show up in the list.";

/// Reads a page.
pub async fn list(call: &Call, options: &ListOptions) -> Result<Page> {
    let filter = Filter::new(call, options)?;
    let (view, after) = match options.continue_token.as_str() {
        "" => (first_view(call, options).await?, None),
        token => next_view(call, options, token, &filter).await?,
    };
    let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
    let mut page = Page {
        revision: view.revision(),
        continue_token: String::new(),
        remaining: None,
        items: Vec::new(),
    };
    let mut last: Option<Bytes> = None;
    for entry in view.range(&filter.range, after.as_deref()) {
        if !filter.matches(&entry.value)? {
            continue;
        }
        if limit > 0 && page.items.len() == limit {
            let last = last.take().unwrap_or_default();
            if filter.is_everything() {
                page.remaining = Some(view.count(&filter.range, Some(&last)) as u64);
            }
            page.continue_token = token(page.revision as i64, &filter, &last);
            break;
        }
        page.items.push(convert::bytes(&call.kind, &entry.value)?);
        last = Some(entry.key.clone());
    }
    Ok(page)
}

/// A state as new as a `resourceVersion` asks.
pub async fn view(call: &Call, resource_version: &str) -> Result<View> {
    match resource_version {
        "" => call.api.data.fresh().await,
        "0" => Ok(call.api.data.cached()),
        text => call.api.data.not_older_than(revision(text)?).await,
    }
}

async fn first_view(call: &Call, options: &ListOptions) -> Result<View> {
    let (version, matching) =
        (options.resource_version.as_str(), options.resource_version_match.as_str());
    let paged = options.limit > 0 && matching.is_empty();
    if matching == "Exact" || (paged && !matches!(version, "" | "0")) {
        return call.api.data.at(revision(version)?).await.map_err(|status| {
            if status.is_expired() {
                Status::expired("The resourceVersion for the provided list is too old.")
            } else {
                status
            }
        });
    }
    view(call, version).await
}

async fn next_view(
    call: &Call,
    options: &ListOptions,
    token_text: &str,
    filter: &Filter,
) -> Result<(View, Option<Bytes>)> {
    if !matches!(options.resource_version.as_str(), "" | "0") {
        let text = "specifying resource version is not allowed when using continue";
        return Err(Status::bad_request(text));
    }
    let invalid = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
    let decoded = URL_SAFE_NO_PAD
        .decode(token_text.trim_end_matches('='))
        .map_err(|_| invalid("illegal base64 data"))?;
    let token: Token = serde_json::from_slice(&decoded).map_err(|_| invalid("malformed"))?;
    if token.v != TOKEN_VERSION {
        return Err(invalid(&format!(
            "server does not recognize this encoded version {:?}",
            token.v
        )));
    }
    let mut after = filter.range.start.to_vec();
    after.extend_from_slice(token.start.as_bytes());
    let after = Some(Bytes::from(after));
    let Ok(at) = u64::try_from(token.rv) else {
        return Ok((call.api.data.fresh().await?, after));
    };
    match call.api.data.at(at).await {
        Ok(view) => Ok((view, after)),
        Err(status) if status.is_expired() => {
            let mut expired = Status::expired(TOO_OLD);
            let inconsistent = Token { rv: -1, ..token };
            expired.continue_token = Some(encode(&inconsistent));
            Err(expired)
        }
        Err(status) => Err(status),
    }
}

fn token(rv: i64, filter: &Filter, last: &[u8]) -> String {
    let start = last.strip_prefix(&filter.range.start[..]).unwrap_or(last);
    encode(&Token {
        v: TOKEN_VERSION.to_owned(),
        rv,
        start: String::from_utf8_lossy(start).into_owned(),
    })
}

fn encode(token: &Token) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(token).unwrap_or_default())
}

/// Reads a `resourceVersion`.
pub fn revision(text: &str) -> Result<u64> {
    text.parse().map_err(|_| {
        Status::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: \
             invalid syntax"
        ))
    })
}
