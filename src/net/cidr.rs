//! IPv4 ranges: parsing, membership, the n-th address.
//!
//! Why a type of our own: thirty lines; and the planners only need these three questions.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A range of addresses, as in `10.42.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    base: u32,
    length: u8,
}

/// A text that is no IPv4 range.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an IPv4 range like 10.42.0.0/16")]
pub struct NotACidr(String);

impl Cidr {
    /// The range of `length` leading bits around `address`.
    pub fn new(address: Ipv4Addr, length: u8) -> Self {
        let length = length.min(32);
        Self { base: u32::from(address) & mask(length), length }
    }

    /// The first address.
    pub fn base(self) -> Ipv4Addr {
        self.base.into()
    }

    /// The number of leading bits.
    pub fn length(self) -> u8 {
        self.length
    }

    /// The mask as an address.
    pub fn mask(self) -> Ipv4Addr {
        mask(self.length).into()
    }

    /// How many addresses there are.
    pub fn size(self) -> u64 {
        1 << (32 - self.length)
    }

    /// Whether `address` is one of them.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.length) == self.base
    }

    /// Whether some address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.base()) || other.contains(self.base())
    }

    /// The address at `index`, counted from the first.
    pub fn nth(self, index: u64) -> Option<Ipv4Addr> {
        (index < self.size()).then(|| (self.base + index as u32).into())
    }

    /// The part number `index` of `length` leading bits, when there are that many.
    pub fn part(self, length: u8, index: u32) -> Option<Self> {
        let bits = u32::from(length.checked_sub(self.length)?);
        let within = length <= 32 && u64::from(index) < 1 << bits;
        within.then(|| Self { base: self.base + (index << (32 - u32::from(length))), length })
    }

    /// The address's index.
    pub fn index(self, address: Ipv4Addr) -> Option<u64> {
        self.contains(address).then(|| u64::from(u32::from(address) - self.base))
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.base(), self.length)
    }
}

impl FromStr for Cidr {
    type Err = NotACidr;
    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let wrong = || NotACidr(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let length = length.parse().ok().filter(|length| *length <= 32).ok_or_else(wrong)?;
        Ok(Self::new(address.parse().map_err(|_| wrong())?, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_know_their_addresses() {
        let range: Cidr = "10.42.3.9/24".parse().unwrap();
        assert_eq!(range.to_string(), "10.42.3.0/24");
        assert_eq!(range.nth(255), Some([10, 42, 3, 255].into()));
        assert_eq!((range.nth(256), range.index([10, 42, 3, 7].into())), (None, Some(7)));
        let wide: Cidr = "10.42.0.0/16".parse().unwrap();
        assert_eq!(wide.part(24, 3).unwrap().to_string(), "10.42.3.0/24");
        assert!(wide.part(24, 256).is_none() && wide.part(8, 0).is_none());
        assert!(range.overlaps("10.42.0.0/16".parse().unwrap()));
        assert!(!range.overlaps("10.43.0.0/16".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains([8, 8, 8, 8].into()));
        assert!("10.0.0.0/33".parse::<Cidr>().is_err() && "10.0.0.0".parse::<Cidr>().is_err());
    }
}
