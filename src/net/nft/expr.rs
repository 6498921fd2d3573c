//! The expressions that our rules are made of, as attributes.
//!
//! Why by hand: there are fifteen of them with two or three numbers each. A rule is written as it
//! is read: load into registers, compare, look up, act; the first step that fails ends the rule.

use crate::net::netlink::Message;

/// 32-bit registers by number: a key of several parts lies in registers one after another.
pub const fn register(number: u32) -> u32 {
    8 + number
}

/// What ends a rule.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'a> {
    /// Let it pass this chain.
    Accept,
    /// Drop it silently.
    Drop,
    /// Go on in another chain and do not come back.
    Goto(&'a str),
    /// Go on in another chain and come back.
    Jump(&'a str),
}

/// Writes the expressions of one rule.
pub struct Expr<'a> {
    list: &'a mut Message,
}

impl<'a> Expr<'a> {
    pub(super) fn new(list: &'a mut Message) -> Self {
        Self { list }
    }

    fn push(&mut self, name: &str, fill: impl FnOnce(&mut Message)) -> &mut Self {
        self.list.nest(1, |element| {
            element.text(1, name).nest(2, fill);
        });
        self
    }

    /// Loads `NFT_META_` key: 6 `iifname`, 7 `oifname`, 16 `l4proto`.
    fn meta(&mut self, key: u32, to: u32) -> &mut Self {
        self.push("meta", |data| {
            data.be32(2, key).be32(1, to);
        })
    }

    /// Loads packet bytes; base 1 is the network header, 2 the transport header.
    fn payload(&mut self, base: u32, offset: u32, length: u32, to: u32) -> &mut Self {
        self.push("payload", |data| {
            data.be32(1, to).be32(2, base).be32(3, offset).be32(4, length);
        })
    }

    fn compare(&mut self, from: u32, operator: u32, with: &[u8]) -> &mut Self {
        self.push("cmp", |data| {
            data.be32(1, from).be32(2, operator).nest(3, |value| {
                value.attr(1, with);
            });
        })
    }

    fn mask(&mut self, at: u32, mask: &[u8]) -> &mut Self {
        self.push("bitwise", |data| {
            data.be32(1, at).be32(2, at).be32(3, mask.len() as u32);
            data.nest(4, |value| {
                value.attr(1, mask);
            });
            data.nest(5, |value| {
                value.attr(1, &vec![0; mask.len()]);
            });
        })
    }

    /// Loads the source address.
    pub fn source_address(&mut self, to: u32) -> &mut Self {
        self.payload(1, 12, 4, to)
    }

    /// Loads the destination address.
    pub fn destination_address(&mut self, to: u32) -> &mut Self {
        self.payload(1, 16, 4, to)
    }

    /// Loads the transport protocol's number.
    pub fn protocol(&mut self, to: u32) -> &mut Self {
        self.meta(16, to)
    }

    /// Loads the destination port.
    pub fn destination_port(&mut self, to: u32) -> &mut Self {
        self.payload(2, 2, 2, to)
    }

    /// Loads bytes.
    pub fn constant(&mut self, bytes: &[u8], to: u32) -> &mut Self {
        self.push("immediate", |data| {
            data.be32(1, to).nest(2, |value| {
                value.attr(1, bytes);
            });
        })
    }

    /// Loads a random number below `count`.
    pub fn random(&mut self, count: u32, to: u32) -> &mut Self {
        self.push("numgen", |data| {
            data.be32(1, to).be32(2, count).be32(3, 1).be32(4, 0);
        })
    }

    /// Goes on when the incoming link's name begins with `prefix`.
    pub fn from_link(&mut self, prefix: &str) -> &mut Self {
        self.meta(6, 1).compare(1, 0, prefix.as_bytes())
    }

    /// Goes on when the outgoing link's name begins with `prefix`.
    pub fn to_link(&mut self, prefix: &str) -> &mut Self {
        self.meta(7, 1).compare(1, 0, prefix.as_bytes())
    }

    /// Goes on when the outgoing link's name does not begin with `prefix`.
    pub fn not_to_link(&mut self, prefix: &str) -> &mut Self {
        self.meta(7, 1).compare(1, 1, prefix.as_bytes())
    }

    /// Goes on when the loaded address is (`inside`) or is not in a range.
    pub fn in_range(&mut self, at: u32, range: crate::net::cidr::Cidr, inside: bool) -> &mut Self {
        self.mask(at, &range.mask().octets()).compare(
            at,
            u32::from(!inside),
            &range.base().octets(),
        )
    }

    /// Goes on when the destination is (`local`) or is not an address of this host.
    pub fn destination_is_local(&mut self, local: bool) -> &mut Self {
        const RTN_LOCAL: u32 = 2;
        self.push("fib", |data| {
            data.be32(1, 1).be32(2, 3).be32(3, 2);
        })
        .compare(1, u32::from(!local), &RTN_LOCAL.to_ne_bytes())
    }

    /// Goes on when the connection's destination was translated.
    pub fn destination_was_translated(&mut self) -> &mut Self {
        const STATUS: u32 = 2;
        const TRANSLATED: u32 = 1 << 5;
        self.push("ct", |data| {
            data.be32(2, STATUS).be32(1, 1);
        })
        .mask(1, &TRANSLATED.to_ne_bytes())
        .compare(1, 1, &[0; 4])
    }

    /// Goes on for an ICMP message of this type.
    pub fn icmp_type(&mut self, number: u8) -> &mut Self {
        self.protocol(1).compare(1, 0, &[libc::IPPROTO_ICMP as u8]);
        self.payload(2, 0, 1, 1).compare(1, 0, &[number])
    }

    /// Goes on when the key is in a set.
    pub fn member(&mut self, set: &str, key: u32) -> &mut Self {
        self.push("lookup", |data| {
            data.text(1, set).be32(2, key);
        })
    }

    /// Goes on when the key is in a map, and loads its value.
    pub fn find(&mut self, map: &str, key: u32, to: u32) -> &mut Self {
        self.push("lookup", |data| {
            data.text(1, map).be32(2, key).be32(3, to);
        })
    }

    /// Follows the verdict that a map has for the key.
    pub fn dispatch(&mut self, map: &str, key: u32) -> &mut Self {
        self.find(map, key, 0)
    }

    /// Puts key and value into a dynamic map, or renews its timeout. A full map ends the rule.
    pub fn remember(&mut self, map: &str, key: u32, value: u32, milliseconds: u64) -> &mut Self {
        self.push("dynset", |data| {
            data.text(1, map).be32(3, 1).be32(4, key).be32(5, value);
            data.attr(6, &milliseconds.to_be_bytes());
        })
    }

    /// Takes a key out of a dynamic map. The kernel wants a value named here too and ignores it.
    pub fn forget(&mut self, map: &str, key: u32, value: u32) -> &mut Self {
        self.push("dynset", |data| {
            data.text(1, map).be32(3, 2).be32(4, key).be32(5, value);
        })
    }

    /// Translates the destination to the address and port in two registers.
    pub fn translate_destination(&mut self, address: u32, port: u32) -> &mut Self {
        self.push("nat", |data| {
            data.be32(1, 1).be32(2, u32::from(super::FAMILY_IP));
            data.be32(3, address).be32(5, port);
        })
    }

    /// Replaces the source by the outgoing link's address, with ports that nobody can guess.
    pub fn masquerade(&mut self) -> &mut Self {
        const RANDOM_FULLY: u32 = 1 << 4;
        self.push("masq", |data| {
            data.be32(1, RANDOM_FULLY);
        })
    }

    /// Refuses: "port unreachable", which a connecting client sees as "connection refused".
    pub fn reject(&mut self) -> &mut Self {
        const PORT_UNREACHABLE: u8 = 3;
        self.push("reject", |data| {
            data.be32(1, 0).attr(2, &[PORT_UNREACHABLE]);
        })
    }

    /// Counts packets and bytes, as iptables expects in each of its rules.
    pub fn count(&mut self) -> &mut Self {
        self.push("counter", |data| {
            data.attr(1, &[0; 8]).attr(2, &[0; 8]);
        })
    }

    /// Ends the rule.
    pub fn verdict(&mut self, verdict: Verdict<'_>) -> &mut Self {
        self.push("immediate", |data| {
            data.be32(1, 0).nest(2, |value| write_verdict(value, &verdict));
        })
    }
}

pub(super) fn write_verdict(data: &mut Message, verdict: &Verdict<'_>) {
    const DROP: i32 = 0;
    const ACCEPT: i32 = 1;
    const JUMP: i32 = -3;
    const GOTO: i32 = -4;
    let (code, chain) = match verdict {
        Verdict::Drop => (DROP, None),
        Verdict::Accept => (ACCEPT, None),
        Verdict::Jump(chain) => (JUMP, Some(*chain)),
        Verdict::Goto(chain) => (GOTO, Some(*chain)),
    };
    data.nest(2, |inner| {
        inner.be32(1, code as u32);
        if let Some(chain) = chain {
            inner.text(2, chain);
        }
    });
}
