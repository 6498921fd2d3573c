//! nftables as messages: transactions out, chains, rules and set elements in.
//!
//! Why one table of our own (`ip clusterd`): it is listed by one command, replaced in one
//! transaction, removed by one message, and nobody else's rules are ever touched. The only
//! exception is Docker's DOCKER-USER chain (`podnet::docker_user`).

mod expr;
mod read;

use crate::net::netlink::{Message, Result, Socket};

pub use expr::{Expr, Verdict, register};
pub use read::{chains, elements, rules, table_of, tables};

/// The table that holds all that is ours.
pub const TABLE: &str = "clusterd";
/// `NFPROTO_IPV4`.
pub const FAMILY_IP: u8 = 2;

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

/// Bytes of elements in one message: the attribute that holds them ends at 64 KiB.
const ELEMENTS_BYTES_MAX: usize = 60_000;

/// Message types of the subsystem.
mod kind {
    pub const NEW_TABLE: u16 = 0;
    pub const GET_TABLE: u16 = 1;
    pub const DEL_TABLE: u16 = 2;
    pub const NEW_CHAIN: u16 = 3;
    pub const GET_CHAIN: u16 = 4;
    pub const DEL_CHAIN: u16 = 5;
    pub const NEW_RULE: u16 = 6;
    pub const GET_RULE: u16 = 7;
    pub const DEL_RULE: u16 = 8;
    pub const NEW_SET: u16 = 9;
    pub const NEW_ELEMENT: u16 = 12;
    pub const GET_ELEMENT: u16 = 13;
    pub const DEL_ELEMENT: u16 = 14;
}

/// Where a base chain sits.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// "filter" or "nat".
    pub kind: &'static str,
    /// `NF_INET_PRE_ROUTING` 0, `LOCAL_IN` 1, `FORWARD` 2, `LOCAL_OUT` 3, `POST_ROUTING` 4.
    pub number: u32,
    /// Lower ones come first.
    pub priority: i32,
}

/// What a set's keys and values are, and how it is kept.
#[derive(Clone, Copy, Debug)]
pub struct SetSpec {
    /// Its name.
    pub name: &'static str,
    /// The parts of its key, as nft's data types.
    pub key: &'static [DataType],
    /// What its elements lead to.
    pub value: SetValue,
    /// Filled by packets, with a timeout for each element, up to this many.
    pub dynamic: Option<u32>,
}

/// What the elements of a set lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetValue {
    /// Nothing: only membership counts.
    None,
    /// A verdict.
    Verdict,
    /// Data of these types.
    Data(&'static [DataType]),
}

/// nft's numbers of data types; each part of a key takes whole 32-bit registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// `ipv4_addr`.
    Address = 7,
    /// `inet_proto`.
    Protocol = 12,
    /// `inet_service`.
    Port = 13,
    /// `mark`: any 32-bit number in the host's order.
    Number = 19,
}

/// What an element leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// Nothing.
    None,
    /// On with the rules of a chain.
    Goto(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A transaction in the making, on one table.
pub struct Transaction {
    table: String,
    parts: Vec<Message>,
}

impl Transaction {
    /// A transaction on `table`.
    pub fn on(table: &str) -> Self {
        let mut begin = [0_u8; 4];
        begin[2..].copy_from_slice(&(SUBSYSTEM >> 8).to_be_bytes());
        let parts = vec![Message::new(BATCH_BEGIN, 0, &begin)];
        Self { table: table.to_owned(), parts }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.parts.len() == 1
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.parts.len() - 1
    }

    fn push(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Message)) -> &mut Self {
        let mut message = Message::new(SUBSYSTEM | kind, flags, &[FAMILY_IP, 0, 0, 0]);
        message.text(1, &self.table);
        fill(&mut message);
        self.parts.push(message);
        self
    }

    /// Makes the table; it may exist.
    pub fn add_table(&mut self) -> &mut Self {
        self.push(kind::NEW_TABLE, NLM_F_CREATE, |table| {
            table.be32(2, 0);
        })
    }

    /// Removes the table with all that is in it.
    pub fn delete_table(&mut self) -> &mut Self {
        self.push(kind::DEL_TABLE, 0, |_| {})
    }

    /// Makes a chain; a base chain where `hook` is given.
    pub fn add_chain(&mut self, name: &str, hook: Option<Hook>) -> &mut Self {
        self.push(kind::NEW_CHAIN, NLM_F_CREATE, |chain| {
            chain.text(3, name);
            let Some(hook) = hook else { return };
            chain.nest(4, |place| {
                place.be32(1, hook.number).be32(2, hook.priority as u32);
            });
            chain.be32(5, 1).text(7, hook.kind);
        })
    }

    /// Removes a chain, which must be referred to no more, with its rules.
    pub fn delete_chain(&mut self, name: &str) -> &mut Self {
        self.push(kind::DEL_RULE, 0, |rule| {
            rule.text(2, name);
        });
        self.push(kind::DEL_CHAIN, 0, |chain| {
            chain.text(3, name);
        })
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, fill: impl FnOnce(&mut Expr<'_>)) -> &mut Self {
        self.rule(chain, NLM_F_APPEND, "", fill)
    }

    /// Puts a rule with a comment at the head of a chain.
    pub fn insert_rule(
        &mut self,
        chain: &str,
        comment: &str,
        fill: impl FnOnce(&mut Expr<'_>),
    ) -> &mut Self {
        self.rule(chain, 0, comment, fill)
    }

    fn rule(
        &mut self,
        chain: &str,
        flags: u16,
        comment: &str,
        fill: impl FnOnce(&mut Expr<'_>),
    ) -> &mut Self {
        self.push(kind::NEW_RULE, NLM_F_CREATE | flags, |rule| {
            rule.text(2, chain).nest(4, |list| fill(&mut Expr::new(list)));
            if !comment.is_empty() {
                rule.attr(7, &read::comment_bytes(comment));
            }
        })
    }

    /// Removes one rule by the number that the kernel gave it.
    pub fn delete_rule(&mut self, chain: &str, handle: u64) -> &mut Self {
        self.push(kind::DEL_RULE, 0, |rule| {
            rule.text(2, chain).attr(3, &handle.to_be_bytes());
        })
    }

    /// Makes a set or map.
    pub fn add_set(&mut self, spec: &SetSpec, id: u32) -> &mut Self {
        const MAP: u32 = 8;
        const TIMEOUT: u32 = 0x10;
        const EVALUATED: u32 = 0x20;
        const VERDICTS: u32 = 0xffff_ff00;
        let mut flags = if spec.value == SetValue::None { 0 } else { MAP };
        if spec.dynamic.is_some() {
            flags |= TIMEOUT | EVALUATED;
        }
        self.push(kind::NEW_SET, NLM_F_CREATE, |set| {
            set.text(2, spec.name).be32(3, flags);
            set.be32(4, type_number(spec.key)).be32(5, spec.key.len() as u32 * 4);
            match spec.value {
                SetValue::None => {}
                SetValue::Verdict => {
                    set.be32(6, VERDICTS).be32(7, 16);
                }
                SetValue::Data(types) => {
                    set.be32(6, type_number(types)).be32(7, types.len() as u32 * 4);
                }
            }
            set.be32(10, id);
            if let Some(size) = spec.dynamic {
                set.nest(9, |description| {
                    description.be32(1, size);
                });
            }
        })
    }

    /// Adds elements to a set.
    pub fn add_elements(&mut self, set: &str, elements: &[(Vec<u8>, Data)]) -> &mut Self {
        self.elements(kind::NEW_ELEMENT, NLM_F_CREATE, set, elements)
    }

    /// Removes elements of a set.
    pub fn delete_elements(&mut self, set: &str, elements: &[(Vec<u8>, Data)]) -> &mut Self {
        self.elements(kind::DEL_ELEMENT, 0, set, elements)
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        elements: &[(Vec<u8>, Data)],
    ) -> &mut Self {
        let mut rest = elements;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|element| {
                bytes += element_bytes(element);
                bytes <= ELEMENTS_BYTES_MAX
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            self.push(kind, flags, |message| {
                message.text(2, set).nest(3, |list| {
                    now.iter().for_each(|element| write_element(list, element));
                });
            });
            rest = later;
        }
        self
    }

    /// Sends it: all of it takes effect at once, or nothing.
    pub fn commit(mut self, socket: &mut Socket, doing: &str) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        self.parts.push(Message::new(BATCH_END, 0, &[0, 0, 0, 10]));
        socket.batch(doing, self.parts)
    }
}

fn type_number(types: &[DataType]) -> u32 {
    types.iter().fold(0, |number, part| number << 6 | *part as u32)
}

fn element_bytes((key, data): &(Vec<u8>, Data)) -> usize {
    let data = match data {
        Data::None => 0,
        Data::Goto(chain) => 28 + chain.len(),
        Data::Bytes(bytes) => 8 + bytes.len(),
    };
    16 + key.len() + data
}

fn write_element(list: &mut Message, (key, data): &(Vec<u8>, Data)) {
    list.nest(1, |element| {
        element.nest(1, |inner| {
            inner.attr(1, key);
        });
        match data {
            Data::None => {}
            Data::Goto(chain) => {
                element.nest(2, |inner| expr::write_verdict(inner, &Verdict::Goto(chain)));
            }
            Data::Bytes(bytes) => {
                element.nest(2, |inner| {
                    inner.attr(1, bytes);
                });
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::netlink::attrs;

    #[test]
    fn many_elements_are_spread_over_messages() {
        let elements: Vec<_> =
            (0..5_000_u32).map(|n| (n.to_be_bytes().to_vec(), Data::Bytes(vec![0; 8]))).collect();
        let mut transaction = Transaction::on(TABLE);
        transaction.add_elements("endpoints", &elements);
        assert!(transaction.len() > 1);
        let mut seen = 0;
        for part in transaction.parts.into_iter().skip(1) {
            let bytes = part.finish(0);
            let list = attrs(&bytes[20..]).find(|attr| attr.kind == 3).unwrap();
            assert!(list.value.len() < 65_536);
            seen += list.attrs().count();
        }
        assert_eq!(seen, elements.len());
    }
}
