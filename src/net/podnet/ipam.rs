//! Which pod holds which address: one small file an address, made and renamed into place.
//!
//! Why files and not one table: a file that exists is an address that is taken, whatever moment the
//! process died at. A file whose link is gone belongs to a namespace that is gone, so a start drops
//! it; a link whose file is gone gets its file back from the link's label.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::client::node::PodRef;
use crate::net::cidr::Cidr;

/// The first address that a pod may have: 0 names the range, 1 is the gateway.
const FIRST_POD_INDEX: u64 = 2;
/// Bytes that the kernel keeps of a link's label; a longer pod name (it is ASCII) is cut.
const LABEL_BYTES_MAX: usize = 250;

/// Who holds an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The pod's uid.
    pub uid: String,
    /// The pod's namespace, for people.
    #[serde(default)]
    pub namespace: String,
    /// The pod's name, for people.
    #[serde(default)]
    pub name: String,
    /// The network namespace that the address is in (its inode number), 0 when unknown.
    #[serde(default)]
    pub netns: u64,
}

impl Lease {
    /// A lease for this pod and namespace.
    pub fn new(pod: &PodRef, netns: u64) -> Self {
        let PodRef { namespace, name, uid } = pod.clone();
        Self { uid, namespace, name, netns }
    }

    /// The label that the pod's link carries.
    pub fn label(&self) -> String {
        let Self { uid, netns, namespace, name } = self;
        let label = format!("clusterd pod {uid} {netns} {namespace}/{name}");
        label.chars().take(LABEL_BYTES_MAX).collect()
    }

    /// Reads a link's label.
    pub fn from_label(label: &str) -> Option<Self> {
        let mut words = label.strip_prefix("clusterd pod ")?.split(' ');
        let (uid, netns) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        let (namespace, name) = words.next()?.split_once('/')?;
        Some(Self { uid, netns, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// Why no address was given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Each address of the range is taken.
    #[error("no free address left in the node's pod range {0}")]
    Full(Cidr),
}

/// The addresses in use.
#[derive(Debug)]
pub struct Ipam {
    directory: PathBuf,
    leases: BTreeMap<Ipv4Addr, Lease>,
    /// The address given last: the next one is looked for behind it, so that an address rests for
    /// as long as possible before another pod gets it.
    last: Option<Ipv4Addr>,
}

impl Ipam {
    /// Reads the directory and makes it agree with the links that live: `live` holds each pod
    /// link's address and label.
    pub fn open(directory: &Path, live: &[(Ipv4Addr, String)]) -> Result<Self, Error> {
        let io = |source| Error::Io { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(io)?;
        let mut ipam =
            Self { directory: directory.to_owned(), leases: BTreeMap::new(), last: None };
        let mut newest = None;
        for entry in fs::read_dir(directory).map_err(io)? {
            let entry = entry.map_err(io)?;
            let file_name = entry.file_name();
            let Some(address) = file_name.to_str().and_then(|name| name.parse().ok()) else {
                // A write that was cut short.
                fs::remove_file(entry.path()).map_err(io)?;
                continue;
            };
            let made = entry.metadata().and_then(|meta| meta.modified()).ok();
            if made > newest {
                (newest, ipam.last) = (made, Some(address));
            }
            let lease = fs::read(entry.path()).ok();
            match lease.and_then(|bytes| serde_json::from_slice::<Lease>(&bytes).ok()) {
                Some(lease) if live.iter().any(|(alive, _)| *alive == address) => {
                    ipam.leases.insert(address, lease);
                }
                _ => fs::remove_file(entry.path()).map_err(io)?,
            }
        }
        for (address, label) in live {
            if let (false, Some(lease)) =
                (ipam.leases.contains_key(address), Lease::from_label(label))
            {
                ipam.put(*address, lease)?;
            }
        }
        Ok(ipam)
    }

    /// The address that `uid` holds.
    pub fn of(&self, uid: &str) -> Option<(Ipv4Addr, &Lease)> {
        let found = self.leases.iter().find(|(_, lease)| lease.uid == uid);
        found.map(|(address, lease)| (*address, lease))
    }

    /// All that is held.
    pub fn leases(&self) -> &BTreeMap<Ipv4Addr, Lease> {
        &self.leases
    }

    /// Takes a free address of `range` for `lease`; on disk when this returns.
    pub fn allocate(&mut self, range: Cidr, lease: Lease) -> Result<Ipv4Addr, Error> {
        let address = self.free(range).ok_or(Error::Full(range))?;
        self.put(address, lease)?;
        self.last = Some(address);
        Ok(address)
    }

    /// Gives an address back.
    pub fn release(&mut self, address: Ipv4Addr) -> Result<(), Error> {
        let path = self.directory.join(address.to_string());
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Io { path, source });
            }
            _ => {}
        }
        self.leases.remove(&address);
        Ok(())
    }

    fn free(&self, range: Cidr) -> Option<Ipv4Addr> {
        // The last address of a range is the broadcast address to some programs.
        let usable = range.size().checked_sub(FIRST_POD_INDEX + 1).filter(|count| *count > 0)?;
        let after = self.last.and_then(|last| range.index(last)).unwrap_or(FIRST_POD_INDEX - 1);
        (0..usable)
            .filter_map(|step| {
                let offset = (after + 1 + step).saturating_sub(FIRST_POD_INDEX) % usable;
                range.nth(FIRST_POD_INDEX + offset)
            })
            .find(|address| !self.leases.contains_key(address))
    }

    fn put(&mut self, address: Ipv4Addr, lease: Lease) -> Result<(), Error> {
        let path = self.directory.join(address.to_string());
        self.write(&path, &lease).map_err(|source| Error::Io { path, source })?;
        self.leases.insert(address, lease);
        Ok(())
    }

    fn write(&self, path: &Path, lease: &Lease) -> io::Result<()> {
        let draft = self.directory.join(".new");
        let mut file = fs::File::create(&draft)?;
        file.write_all(&serde_json::to_vec(lease)?)?;
        file.sync_data()?;
        fs::rename(&draft, path)?;
        fs::File::open(&self.directory)?.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(uid: &str) -> Lease {
        let pod = PodRef { namespace: "ns".into(), name: format!("pod-{uid}"), uid: uid.into() };
        Lease::new(&pod, 7)
    }

    #[test]
    fn an_address_rests_before_it_is_given_again() {
        let dir = tempfile::tempdir().unwrap();
        let range: Cidr = "10.42.0.0/29".parse().unwrap();
        let mut ipam = Ipam::open(dir.path(), &[]).unwrap();
        let given: Vec<_> = ["a", "b", "c", "d", "e"]
            .iter()
            .map(|uid| ipam.allocate(range, lease(uid)).unwrap().octets()[3])
            .collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
        assert!(matches!(ipam.allocate(range, lease("f")), Err(Error::Full(_))));
        ipam.release(Ipv4Addr::new(10, 42, 0, 3)).unwrap();
        ipam.release(Ipv4Addr::new(10, 42, 0, 5)).unwrap();
        assert_eq!(ipam.allocate(range, lease("f")).unwrap().octets()[3], 3);
        ipam.release(Ipv4Addr::new(10, 42, 0, 3)).unwrap();
        assert_eq!(ipam.allocate(range, lease("g")).unwrap().octets()[3], 5);
    }

    #[test]
    fn a_start_believes_the_links() {
        let dir = tempfile::tempdir().unwrap();
        let range: Cidr = "10.42.0.0/24".parse().unwrap();
        let mut ipam = Ipam::open(dir.path(), &[]).unwrap();
        let kept = ipam.allocate(range, lease("kept")).unwrap();
        let gone = ipam.allocate(range, lease("gone")).unwrap();
        fs::write(dir.path().join(".new"), b"{").unwrap();
        let lost = Ipv4Addr::new(10, 42, 0, 77);
        let live = [(kept, lease("kept").label()), (lost, lease("lost").label())];
        let ipam = Ipam::open(dir.path(), &live).unwrap();
        assert_eq!(ipam.of("kept").unwrap(), (kept, &lease("kept")));
        assert_eq!(ipam.of("lost").unwrap().0, lost);
        assert!(ipam.of("gone").is_none() && gone != kept);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
