//! The node's network: pod links, service proxy, DNS. Netlink is used only here.

pub mod cidr;
pub mod netlink;
pub mod nft;
pub mod podnet;
pub mod proxy;
