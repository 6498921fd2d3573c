//! The node's network: pod links, service proxy, DNS. Netlink is used only here.
