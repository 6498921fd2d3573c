//! The cluster's DNS, in every node.
//!
//! `records` says what one Service means, `zone` joins and renders all of them, `answer` makes a
//! response, `forward` asks the host's name servers, `server` has the sockets.

pub mod answer;
pub mod forward;
pub mod records;
pub mod server;
#[cfg(test)]
mod tests;
pub mod wire;
pub mod zone;
