//! The service proxy: Services and EndpointSlices become elements of nftables sets.

pub mod layout;
