//! Netlink, as little of it as nftables and connection tracking need: messages, attributes, one
//! blocking socket.
//!
//! Why our own beside `rtnetlink`, which speaks of links, addresses and routes: the typed crates
//! know a part of nftables (half of its expressions would go in as raw bytes anyway). One writer
//! and one reader of attributes serve both families, and a whole nftables transaction is one buffer
//! in one system call. Requests to the kernel are answered before the send returns, so the socket
//! is a plain blocking one.

mod socket;
mod wire;

pub use socket::{DUMP_ATTEMPTS_MAX, Error, Notices, Result, Socket, prepare};
pub use wire::{Attr, HEADER, Message, Received, attrs};
