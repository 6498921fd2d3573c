//! Netlink, as little of it as the network needs: messages, attributes, one blocking socket.
//!
//! Why our own: routes, nftables and connection tracking are three families over one format, and
//! the typed crates know a part of each (half of the nftables expressions would go in as raw bytes
//! anyway). One writer and one reader of attributes serve all three, and a whole nftables
//! transaction is one buffer in one system call. Requests to the kernel are answered before the
//! send returns, so the socket is a plain blocking one.

mod socket;
mod wire;

pub use socket::{Error, Family, Notices, Result, Socket};
pub use wire::{Attr, Message, Received, attrs, ne32};
