//! The names of the cluster with their answers rendered, as an immutable snapshot.
//!
//! Why rendered beforehand: a Service changes some times a minute and is asked for some thousand
//! times a second. Why a persistent map: a new snapshot shares all but the changed names with the
//! one before, so a change costs the same among ten names and among a hundred thousand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::records::{Record, Records};
use super::wire::{Name, kind, name, parent};
use crate::net::cidr::Cidr;
use crate::reconcile::ObjectKey;

/// Seconds that a client may keep an answer (CoreDNS' default for this zone).
pub const TTL_SECONDS: u32 = 5;
/// Version of the DNS specification, as `dns-version` tells it.
const SPECIFICATION: &str = "1.1.0";
/// A pointer to the question's name: the owner of all pre-rendered records.
const OWNER: [u8; 2] = [0xc0, 12];
/// Seconds of the SOA's refresh, retry, expire and negative answers.
const SOA_TIMES: [u32; 4] = [7_200, 1_800, 86_400, TTL_SECONDS];

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct ZoneConfig {
    /// As in "cluster.local".
    pub domain: String,
    /// Where this DNS answers.
    pub address: Ipv4Addr,
    /// Ranges whose reverse names are ours: those without a record do not exist.
    pub ranges: Vec<Cidr>,
}

/// The records of one type at one name.
#[derive(Debug)]
pub struct RecordSet {
    /// The type.
    pub kind: u16,
    /// The records, each with a pointer to the question as its owner.
    pub records: Vec<Box<[u8]>>,
    /// Records that a client will ask for next.
    pub additional: Vec<Box<[u8]>>,
}

/// All that is known of one name.
#[derive(Debug, Default)]
pub struct Node {
    /// By type.
    pub sets: Vec<RecordSet>,
    /// The name that it stands for.
    pub alias: Option<Name>,
}

/// The state at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    nodes: imbl::HashMap<Name, Arc<Node>>,
    /// The zone's name.
    pub zone: Name,
    /// `pod` below it.
    pods: Name,
    /// The data of the SOA record.
    pub soa: Arc<[u8]>,
    ranges: Arc<[Cidr]>,
    /// All Services have been read once: what is not here does not exist.
    pub complete: bool,
}

/// What a name is.
pub enum Found {
    /// It exists.
    Node(Arc<Node>),
    /// It stands for a pod's address.
    Pod(Ipv4Addr),
    /// It exists and has no records.
    Empty,
    /// It is ours and does not exist; the SOA belongs to the last so many bytes of the name.
    Nothing(usize),
    /// It is not ours.
    Outside,
}

impl Snapshot {
    /// Looks up a name in lower case.
    pub fn find(&self, asked: &[u8]) -> Found {
        if let Some(node) = self.nodes.get(asked) {
            return Found::Node(node.clone());
        }
        if below(asked, &self.zone) {
            return self.pod(asked).unwrap_or(Found::Nothing(self.zone.len()));
        }
        match super::wire::address_of_reverse(asked) {
            Some(address) if self.ranges.iter().any(|range| range.contains(address)) => {
                // The SOA is put at the range of the address's first two bytes.
                let [a, b, ..] = address.octets();
                let zone = name(&format!("{b}.{a}.in-addr.arpa")).unwrap_or_default();
                Found::Nothing(zone.len())
            }
            _ => Found::Outside,
        }
    }

    /// `10-42-0-7.NAMESPACE.pod.ZONE`.
    fn pod(&self, asked: &[u8]) -> Option<Found> {
        if asked == &*self.pods || parent(asked)? == &*self.pods {
            return Some(Found::Empty);
        }
        if parent(parent(asked)?)? != &*self.pods {
            return None;
        }
        let label = super::wire::labels(asked).next()?;
        let text = std::str::from_utf8(label).ok()?.replace('-', ".");
        text.parse().ok().map(Found::Pod)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

fn below(name: &[u8], zone: &[u8]) -> bool {
    let mut at = Some(name);
    while let Some(rest) = at {
        if rest.len() <= zone.len() {
            return rest == zone;
        }
        at = parent(rest);
    }
    false
}

/// Builds snapshots from what each Service contributes.
pub struct Zone {
    by_service: HashMap<Arc<ObjectKey>, Records>,
    owners: HashMap<Name, BTreeMap<Arc<ObjectKey>, BTreeSet<Record>>>,
    /// How many names lie right below a name; such a name exists though nothing is at it.
    children: HashMap<Name, usize>,
    snapshot: Snapshot,
}

impl Zone {
    /// A zone with the names that every cluster has.
    pub fn new(config: &ZoneConfig) -> anyhow::Result<Self> {
        let domain = &config.domain;
        let named = |text: String| {
            name(&text).ok_or_else(|| anyhow::anyhow!("{text:?} cannot be a cluster domain"))
        };
        let zone = named(domain.clone())?;
        let server = format!("ns.dns.{domain}");
        let mut soa = named(server.clone())?.to_vec();
        soa.extend(named(format!("hostmaster.{domain}"))?);
        soa.extend(1_u32.to_be_bytes());
        soa.extend(SOA_TIMES.iter().flat_map(|seconds| seconds.to_be_bytes()));
        let snapshot = Snapshot {
            nodes: imbl::HashMap::new(),
            zone: zone.clone(),
            pods: named(format!("pod.{domain}"))?,
            soa: soa.into(),
            ranges: config.ranges.clone().into(),
            complete: false,
        };
        let mut made = Self {
            by_service: HashMap::new(),
            owners: HashMap::new(),
            children: HashMap::new(),
            snapshot,
        };
        let one = |record| BTreeSet::from([record]);
        let fixed = Records::from([
            (zone, one(Record::Ns(named(server.clone())?))),
            (named(server)?, one(Record::A(config.address))),
            (named(format!("svc.{domain}"))?, BTreeSet::new()),
            (named(format!("dns-version.{domain}"))?, one(Record::Txt(SPECIFICATION.to_owned()))),
        ]);
        made.set(ObjectKey::default(), fixed);
        Ok(made)
    }

    /// The present state.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// All Services have been read once.
    pub fn complete(&mut self) {
        self.snapshot.complete = true;
    }

    /// Replaces what one Service contributes.
    pub fn set(&mut self, service: ObjectKey, records: Records) {
        let service = Arc::new(service);
        let old = self.by_service.remove(&service).unwrap_or_default();
        for name in old.keys().filter(|name| !records.contains_key(*name)) {
            self.change(name, &service, None);
        }
        for (name, set) in &records {
            if old.get(name) != Some(set) {
                self.change(name, &service, Some(set.clone()));
            }
        }
        if !records.is_empty() {
            self.by_service.insert(service, records);
        }
    }

    fn change(&mut self, name: &Name, service: &Arc<ObjectKey>, to: Option<BTreeSet<Record>>) {
        let owners = self.owners.entry(name.clone()).or_default();
        let existed = !owners.is_empty();
        match to {
            Some(records) => owners.insert(service.clone(), records),
            None => owners.remove(service),
        };
        let exists = !owners.is_empty();
        let all: BTreeSet<&Record> = owners.values().flatten().collect();
        let node = render(&all);
        if !exists {
            self.owners.remove(name);
        }
        match (existed, exists) {
            (false, true) => self.count(name, true),
            (true, false) => self.count(name, false),
            _ => {}
        }
        self.put(name, exists.then_some(node));
    }

    fn put(&mut self, name: &Name, node: Option<Node>) {
        let inner = self.children.contains_key(name);
        match node.or_else(|| inner.then(Node::default)) {
            Some(node) => self.snapshot.nodes.insert(name.clone(), Arc::new(node)),
            None => self.snapshot.nodes.remove(name),
        };
    }

    /// Notes at all names above that one below them came or went.
    fn count(&mut self, name: &Name, came: bool) {
        let mut at = parent(name);
        while let Some(above) = at.filter(|above| below(above, &self.snapshot.zone)) {
            let key: Name = above.into();
            let count = self.children.entry(key.clone()).or_default();
            *count = if came { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.children.remove(&key);
            }
            if !self.owners.contains_key(&key) {
                self.put(&key, None);
            }
            at = parent(above);
        }
    }
}

/// Renders the records of one name.
fn render(records: &BTreeSet<&Record>) -> Node {
    let mut node = Node::default();
    for record in records {
        let (kind, data) = match record {
            Record::A(address) => (kind::A, address.octets().to_vec()),
            Record::Cname(target) => (kind::CNAME, target.to_vec()),
            Record::Ptr(target) => (kind::PTR, target.to_vec()),
            Record::Ns(target) => (kind::NS, target.to_vec()),
            Record::Txt(text) => {
                let text = &text.as_bytes()[..text.len().min(255)];
                (kind::TXT, [&[text.len() as u8], text].concat())
            }
            Record::Srv { port, among, target, .. } => {
                let weight = (100 / among).max(1);
                let fixed = [0, weight, *port].map(u16::to_be_bytes).concat();
                (kind::SRV, [&fixed[..], target].concat())
            }
        };
        if let Record::Cname(target) = record {
            node.alias = Some(target.clone());
        }
        let at = node.sets.iter().position(|set| set.kind == kind).unwrap_or_else(|| {
            node.sets.push(RecordSet { kind, records: Vec::new(), additional: Vec::new() });
            node.sets.len() - 1
        });
        let set = &mut node.sets[at];
        set.records.push(record_bytes(&OWNER, kind, TTL_SECONDS, &data));
        if let Record::Srv { target, address, .. } = record {
            let extra = record_bytes(target, kind::A, TTL_SECONDS, &address.octets());
            if !set.additional.contains(&extra) {
                set.additional.push(extra);
            }
        }
    }
    node
}

/// A record as it is sent.
pub fn record_bytes(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Box<[u8]> {
    const INTERNET: u16 = 1;
    let mut bytes = owner.to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend(INTERNET.to_be_bytes());
    bytes.extend(ttl.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let config = ZoneConfig {
            domain: "cluster.local".into(),
            address: [10, 43, 0, 10].into(),
            ranges: vec!["10.42.0.0/16".parse().unwrap()],
        };
        Zone::new(&config).unwrap()
    }

    fn at(text: &str) -> Name {
        name(text).unwrap()
    }

    #[test]
    fn names_between_exist_as_long_as_something_is_below() {
        let mut zone = zone();
        let before = zone.snapshot().len();
        let owner = at("_http._tcp.web.default.svc.cluster.local");
        let records = Records::from([(owner, BTreeSet::from([Record::Txt("x".into())]))]);
        zone.set(ObjectKey::new("default", "web"), records);
        let snapshot = zone.snapshot();
        for text in ["_tcp.web.default.svc.cluster.local", "default.svc.cluster.local"] {
            assert!(matches!(snapshot.find(&at(text)), Found::Node(_)), "{text}");
        }
        assert!(matches!(snapshot.find(&at("other.svc.cluster.local")), Found::Nothing(_)));
        zone.set(ObjectKey::new("default", "web"), Records::new());
        assert_eq!(zone.snapshot().len(), before);
        assert!(snapshot.len() > before, "an older snapshot does not change");
    }

    #[test]
    fn two_services_share_a_reverse_name() {
        let mut zone = zone();
        let owner = at("2.0.42.10.in-addr.arpa");
        for service in ["a", "b"] {
            let target = at(&format!("web.{service}.ns.svc.cluster.local"));
            let records = Records::from([(owner.clone(), BTreeSet::from([Record::Ptr(target)]))]);
            zone.set(ObjectKey::new("ns", service), records);
        }
        let count = |zone: &Zone| match zone.snapshot().find(&owner) {
            Found::Node(node) => node.sets[0].records.len(),
            _ => 0,
        };
        assert_eq!(count(&zone), 2);
        zone.set(ObjectKey::new("ns", "a"), Records::new());
        assert_eq!(count(&zone), 1);
    }

    #[test]
    fn what_is_not_ours_is_told_from_what_does_not_exist() {
        let snapshot = zone().snapshot();
        let find = |text: &str| snapshot.find(&at(text));
        assert!(matches!(find("10-42-0-7.default.pod.cluster.local"), Found::Pod(_)));
        assert!(matches!(find("default.pod.cluster.local"), Found::Empty));
        assert!(matches!(find("x.default.pod.cluster.local"), Found::Nothing(_)));
        assert!(matches!(find("notcluster.local"), Found::Outside));
        assert!(matches!(find("9.0.42.10.in-addr.arpa"), Found::Nothing(_)));
        assert!(matches!(find("8.8.8.8.in-addr.arpa"), Found::Outside));
    }
}
