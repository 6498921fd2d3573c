//! Bodies of requests and answers: known bytes, or a stream of them.
//!
//! Why one boxed type: a get, a list that is joined while it is sent, a watch and a proxied stream
//! leave through the same door; and the node's streaming server speaks this very type.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, Limited, StreamBody};

use crate::client::node::NodeBody;
use crate::object::Value;
use crate::object::status::{Result, Status};

/// The body of every request and answer.
pub type Body = NodeBody;
/// An answer.
pub type Reply = Response<Body>;

/// Bytes of a joined list that are handed to the connection at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// A body of known bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that ends when `stream` does.
pub fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(stream.map(|part| part.map(Frame::data))).boxed_unsync()
}

/// `head`, the `items` with commas between them, and `tail`, copied chunk by chunk as it is sent:
/// a long list costs one chunk of memory beside the stored objects.
pub fn joined(head: Vec<u8>, items: Vec<Bytes>, tail: &'static [u8]) -> Body {
    let size = items.iter().map(|item| item.len() + 1).sum::<usize>();
    let parts = items.into_iter().enumerate();
    if size + head.len() + tail.len() <= CHUNK_BYTES {
        let mut all = head;
        all.reserve(size + tail.len());
        for (at, item) in parts {
            if at > 0 {
                all.push(b',');
            }
            all.extend_from_slice(&item);
        }
        all.extend_from_slice(tail);
        return full(all);
    }
    let state = (Some(head), parts.peekable());
    stream(futures::stream::unfold(state, move |(mut head, mut parts)| async move {
        let first = head.take();
        if first.is_none() && parts.peek().is_none() {
            return None;
        }
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        chunk.extend_from_slice(&first.unwrap_or_default());
        for (at, item) in parts.by_ref() {
            if at > 0 {
                chunk.extend_from_slice(b",");
            }
            chunk.extend_from_slice(&item);
            if chunk.len() >= CHUNK_BYTES {
                break;
            }
        }
        if parts.peek().is_none() {
            chunk.extend_from_slice(tail);
        }
        Some((Ok(chunk.freeze()), (None, parts)))
    }))
}

/// Reads a whole body of at most `limit` bytes. As many again are thrown away before a longer one
/// is refused: some clients (curl on HTTP/2) lose an answer that comes while they still send.
pub async fn read(mut body: Body, limit: usize) -> Result<Bytes> {
    match Limited::new(&mut body, limit).collect().await {
        Ok(all) => Ok(all.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let mut spare = Limited::new(body, limit);
            while let Some(Ok(_)) = spare.frame().await {}
            Err(Status::too_large(format!("Request entity too large: limit is {limit}")))
        }
        Err(error) => Err(Status::bad_request(format!("error reading the body: {error}"))),
    }
}

/// An answer of known bytes.
pub fn reply(code: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(full(bytes));
    *reply.status_mut() = code;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// An answer in JSON.
pub fn json(code: StatusCode, value: &Value) -> Reply {
    reply(code, "application/json", to_bytes(value))
}

/// A value as JSON. (Writing a value to memory cannot fail.)
pub fn to_bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// A failure as an answer.
pub fn failure(status: &Status) -> Reply {
    let mut reply = json(status.http(), &status.to_value());
    let wait = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if wait > 0 {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_joined_list_is_the_same_in_one_piece_and_in_chunks() {
        for count in [0, 1, 3, 20_000] {
            let items: Vec<Bytes> = (0..count).map(|n| Bytes::from(format!("{n:06}"))).collect();
            let body = joined(b"[".to_vec(), items, b"]").collect().await.unwrap().to_bytes();
            let texts: Vec<String> = (0..count).map(|n| format!("{n:06}")).collect();
            assert_eq!(body, format!("[{}]", texts.join(",")), "{count}");
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        assert_eq!(read(full("1234"), 4).await.unwrap(), "1234");
        assert_eq!(read(full("12345"), 4).await.unwrap_err().code, 413);
    }
}
