//! Cluster addresses: the ranges of ServiceCIDR objects, and one IPAddress object an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use rand::Rng;
use serde_json::json;

use super::families::family_of;
use super::spec::Spec;
use super::{Owner, freed, taken};
use crate::api::storage::{self, Companion, Lookup};
use crate::object::status::{FieldError, Result};
use crate::object::{Status, Value, meta, time};
use crate::stdx::ids;

const GROUP: &str = "networking.k8s.io";
/// The range that the cluster was started with.
const DEFAULT_RANGE: &str = "kubernetes";
/// Addresses at the start of a range are kept for those who ask for one by name: a sixteenth, at
/// least and at most this many.
const STATIC_BAND_MIN: u128 = 16;
const STATIC_BAND_MAX: u128 = 256;
const STATIC_BAND_FRACTION: u128 = 16;

/// The addresses of a range that may be given out.
#[derive(Clone, Debug, PartialEq)]
struct Range {
    family: &'static str,
    first: u128,
    last: u128,
    /// Where addresses that nobody asked for by name begin.
    dynamic: u128,
    /// The whole network, for what contains an address.
    network: (u128, u128),
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(family: &str, number: u128) -> IpAddr {
    if family == "IPv4" {
        // The number came from a V4 range.
        IpAddr::V4(Ipv4Addr::from(number as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from(number))
    }
}

impl Range {
    fn parse(cidr: &str) -> Option<Self> {
        let (base, bits) = cidr.split_once('/')?;
        let (base, bits) = (base.parse::<IpAddr>().ok()?, bits.parse::<u32>().ok()?);
        let width = if base.is_ipv4() { 32 } else { 128 };
        let host_bits = width - Some(bits).filter(|bits| *bits <= width)?;
        let mask = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
        let start = number(base) & !mask;
        let end = start | mask;
        let family = if base.is_ipv4() { "IPv4" } else { "IPv6" };
        // The network's own address is nobody's, nor is V4's broadcast address.
        let (first, last) = (start + 1, if base.is_ipv4() { end - 1 } else { end });
        if first > last {
            return None;
        }
        let size = mask.saturating_add(1);
        let band = if size <= STATIC_BAND_MIN {
            0
        } else {
            (size / STATIC_BAND_FRACTION).clamp(STATIC_BAND_MIN, STATIC_BAND_MAX)
        };
        let dynamic = (first + band).min(last);
        Some(Self { family, first, last, dynamic, network: (start, end) })
    }

    fn contains(&self, family: &str, number: u128) -> bool {
        self.family == family && (self.network.0..=self.network.1).contains(&number)
    }

    /// The first free address from a random start in `from..=to`, round once.
    fn free_between(
        &self,
        from: u128,
        to: u128,
        is_free: &impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        if from > to {
            return None;
        }
        let start = rand::rng().random_range(from..=to);
        let mut candidates = (start..=to).chain(from..start);
        candidates.find_map(|number| {
            Some(address(self.family, number)).filter(|address| is_free(*address))
        })
    }

    fn free(&self, is_free: &impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        self.free_between(self.dynamic, self.last, is_free)
            .or_else(|| self.free_between(self.first, self.dynamic.checked_sub(1)?, is_free))
    }
}

/// The service ranges of the cluster.
pub(super) struct Ranges {
    ranges: Vec<Range>,
}

impl Ranges {
    /// From the ServiceCIDR objects: those that are ready and stay, the default one first.
    pub(super) fn read(view: &dyn Lookup) -> Self {
        let mut ranges: Vec<(bool, Range)> = Vec::new();
        view.scan(storage::prefix("servicecidrs", GROUP).as_bytes(), &mut |_, bytes| {
            let Ok(object) = serde_json::from_slice::<Value>(bytes) else { return true };
            let conditions = meta::at(&object, &["status", "conditions"]);
            let is_refused = conditions.and_then(Value::as_array).is_some_and(|list| {
                list.iter().any(|one| one["type"] == "Ready" && one["status"] == "False")
            });
            if meta::is_deleting(&object) || is_refused {
                return true;
            }
            let cidrs = meta::at(&object, &["spec", "cidrs"]).and_then(Value::as_array);
            let cidrs = cidrs.into_iter().flatten().filter_map(Value::as_str);
            let is_other = meta::name(&object) != DEFAULT_RANGE;
            ranges.extend(cidrs.filter_map(Range::parse).map(|range| (is_other, range)));
            true
        });
        ranges.sort_by_key(|(is_other, _)| *is_other);
        Self { ranges: ranges.into_iter().map(|(_, range)| range).collect() }
    }

    /// The families that addresses can be had of.
    pub(super) fn families(&self) -> Vec<&'static str> {
        let mut families = Vec::new();
        for range in &self.ranges {
            if !families.contains(&range.family) {
                families.push(range.family);
            }
        }
        families
    }

    /// The family of a Service that names none.
    pub(super) fn default_family(&self) -> &'static str {
        self.ranges.first().map_or("IPv4", |range| range.family)
    }
}

fn key(address: &str) -> bytes::Bytes {
    storage::key("ipaddresses", GROUP, "", address)
}

/// The canonical text of an address, which is its object's name.
fn canonical(text: &str) -> String {
    text.parse::<IpAddr>().map_or_else(|_| text.to_owned(), |address| address.to_string())
}

/// Allocation of addresses for one Service.
pub(super) struct Claims<'a> {
    pub(super) owner: &'a Owner,
    pub(super) ranges: &'a Ranges,
    pub(super) view: &'a dyn Lookup,
    pub(super) now: Timestamp,
}

impl Claims<'_> {
    /// Fills in addresses, and gives the keys to take and to free.
    pub(super) fn allocate(
        &self,
        new: &mut Spec,
        old: Option<&Spec>,
        changes: &mut Vec<Companion>,
    ) -> Result<()> {
        let held: Vec<String> = old.map(|old| old.addresses().to_vec()).unwrap_or_default();
        if !new.is_external_name() && !new.is_headless() {
            let families = new.families.clone();
            for (at, family) in families.iter().enumerate() {
                let asked = new.cluster_ips.get(at).cloned().unwrap_or_default();
                if !asked.is_empty() && held.contains(&asked) {
                    continue;
                }
                let address = if asked.is_empty() {
                    self.next(new, family)?
                } else {
                    self.named(new, &asked)?;
                    asked
                };
                changes.push(taken(key(&canonical(&address)), self.object(&address)));
                if at < new.cluster_ips.len() {
                    new.cluster_ips[at] = address;
                } else {
                    new.cluster_ips.push(address);
                }
            }
            new.cluster_ip = new.cluster_ips.first().cloned().unwrap_or_default();
        }
        let kept = new.addresses();
        let gone: Vec<String> = held.into_iter().filter(|one| !kept.contains(one)).collect();
        release(self.owner, &gone, self.view, changes);
        Ok(())
    }

    fn is_free(&self, address: &str) -> bool {
        self.view.get(&key(address)).is_none()
    }

    fn next(&self, new: &Spec, family: &str) -> Result<String> {
        if self.ranges.ranges.is_empty() {
            return Err(self.invalid(new, "failed to allocate IP: allocator not ready"));
        }
        let mut ranges = self.ranges.ranges.iter().filter(|range| range.family == family);
        let found = ranges.find_map(|range| range.free(&|one| self.is_free(&one.to_string())));
        let name = &self.owner.name;
        found.map(|address| address.to_string()).ok_or_else(|| {
            Status::internal(format!(
                "failed to allocate a serviceIP for Service {name:?}: range is full"
            ))
        })
    }

    fn named(&self, new: &Spec, asked: &str) -> Result<()> {
        let refused =
            |why: &str| Err(self.invalid(new, &format!("failed to allocate IP {asked}: {why}")));
        let (Ok(parsed), Some(family)) = (asked.parse::<IpAddr>(), family_of(asked)) else {
            return Err(Status::internal(format!("failed to parse service IP {asked:?}")));
        };
        let number = number(parsed);
        let mut ranges = self.ranges.ranges.iter();
        let Some(range) = ranges.find(|range| range.contains(family, number)) else {
            return refused("the provided network does not match the current range");
        };
        if !(range.first..=range.last).contains(&number) {
            let bits = (range.network.1 - range.network.0).count_ones();
            let width = if family == "IPv4" { 32 } else { 128 };
            let start = address(family, range.network.0);
            return refused(&format!(
                "the provided IP ({asked}) is not in the valid range. The range of valid IPs is \
                 {start}/{}",
                width - bits
            ));
        }
        if !self.is_free(&parsed.to_string()) {
            return refused("provided IP is already allocated");
        }
        Ok(())
    }

    fn invalid(&self, new: &Spec, detail: &str) -> Status {
        let error = FieldError::invalid("spec.clusterIPs", new.cluster_ips.clone(), detail);
        Status::invalid("", "Service", &self.owner.name, &[error])
    }

    /// The IPAddress object that keeps an address for the Service.
    fn object(&self, address: &str) -> Value {
        json!({
            "apiVersion": format!("{GROUP}/v1"),
            "kind": "IPAddress",
            "metadata": {
                "name": canonical(address),
                "uid": ids::uid(),
                "creationTimestamp": time::seconds(self.now),
                "labels": {
                    "ipaddress.kubernetes.io/ip-family": family_of(address),
                    "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
                },
            },
            "spec": {"parentRef": {"resource": "services",
                "namespace": self.owner.namespace, "name": self.owner.name}},
        })
    }
}

/// Frees the addresses that are still kept for the Service.
pub(super) fn release(
    owner: &Owner,
    addresses: &[String],
    view: &dyn Lookup,
    changes: &mut Vec<Companion>,
) {
    for address in addresses {
        let key = key(&canonical(address));
        let Some((bytes, revision)) = view.get(&key) else { continue };
        let object: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let parent = |field: &str| meta::text(&object, &["spec", "parentRef", field]);
        if (parent("resource"), parent("namespace"), parent("name"))
            == ("services", owner.namespace.as_str(), owner.name.as_str())
        {
            changes.push(freed(key, revision));
        }
    }
}
