//! Reading nftables back: what a former run left, what others have.
//!
//! Why: rules survive a restart of the process, so the first transaction is a difference to what is
//! there; and Docker's chain is looked at before it is touched.

use super::{Data, FAMILY_IP, SUBSYSTEM, kind};
use crate::net::netlink::{Attr, Message, Result, Socket, attrs};

/// The label in a rule's user data: type 0, length, text with its final zero byte (as nft does).
pub(super) fn comment_bytes(comment: &str) -> Vec<u8> {
    let mut bytes = vec![0, comment.len() as u8 + 1];
    bytes.extend_from_slice(comment.as_bytes());
    bytes.push(0);
    bytes
}

fn ask(kind: u16, table: Option<&str>) -> Message {
    let mut message = Message::new(SUBSYSTEM | kind, 0, &[FAMILY_IP, 0, 0, 0]);
    if let Some(table) = table {
        message.text(1, table);
    }
    message
}

fn fields(payload: &[u8]) -> impl Iterator<Item = Attr<'_>> {
    attrs(payload.get(4..).unwrap_or(&[]))
}

/// The IPv4 table that a notice is about.
pub fn table_of(payload: &[u8]) -> Option<&str> {
    let name = fields(payload).find(|attr| attr.kind == 1)?;
    (payload.first() == Some(&FAMILY_IP)).then(|| name.text())
}

/// The names of all IPv4 tables.
pub fn tables(socket: &mut Socket) -> Result<Vec<String>> {
    socket.dump("list tables", &ask(kind::GET_TABLE, None), |kept, received| {
        if received.payload.first() == Some(&FAMILY_IP) {
            kept.extend(
                fields(received.payload).find(|attr| attr.kind == 1).map(|a| a.text().to_owned()),
            );
        }
    })
}

/// The names of a table's chains.
pub fn chains(socket: &mut Socket, table: &str) -> Result<Vec<String>> {
    socket.dump("list chains", &ask(kind::GET_CHAIN, None), |kept, received| {
        let (mut owner, mut name) = ("", "");
        for attr in fields(received.payload) {
            match attr.kind {
                1 => owner = attr.text(),
                3 => name = attr.text(),
                _ => {}
            }
        }
        if owner == table && received.payload.first() == Some(&FAMILY_IP) {
            kept.push(name.to_owned());
        }
    })
}

/// A chain's rules in order: the kernel's number and the comment of each.
pub fn rules(socket: &mut Socket, table: &str, chain: &str) -> Result<Vec<(u64, String)>> {
    let mut message = ask(kind::GET_RULE, Some(table));
    message.text(2, chain);
    socket.dump(&format!("list rules of {chain}"), &message, |kept, received| {
        let (mut owner, mut place, mut handle, mut comment) = ("", "", 0, String::new());
        for attr in fields(received.payload) {
            match attr.kind {
                1 => owner = attr.text(),
                2 => place = attr.text(),
                3 => handle = attr.value.first_chunk().map_or(0, |b| u64::from_be_bytes(*b)),
                7 => comment = comment_text(attr.value),
                _ => {}
            }
        }
        if owner == table && place == chain {
            kept.push((handle, comment));
        }
    })
}

/// The elements of a set of ours, with what they lead to.
pub fn elements(socket: &mut Socket, table: &str, set: &str) -> Result<Vec<(Vec<u8>, Data)>> {
    let mut message = ask(kind::GET_ELEMENT, Some(table));
    message.text(2, set);
    socket.dump(&format!("list elements of {set}"), &message, |kept, received| {
        for list in fields(received.payload).filter(|attr| attr.kind == 3) {
            kept.extend(list.attrs().filter_map(|element| element_of(&element)));
        }
    })
}

fn element_of(element: &Attr<'_>) -> Option<(Vec<u8>, Data)> {
    let (mut key, mut data) = (None, Data::None);
    for attr in element.attrs() {
        match attr.kind {
            1 => key = attr.attrs().find(|inner| inner.kind == 1).map(|a| a.value.to_vec()),
            2 => data = data_of(&attr),
            _ => {}
        }
    }
    Some((key?, data))
}

fn data_of(attr: &Attr<'_>) -> Data {
    let Some(inner) = attr.attrs().next() else { return Data::None };
    match inner.kind {
        1 => Data::Bytes(inner.value.to_vec()),
        _ => {
            let chain = inner.attrs().find(|part| part.kind == 2);
            chain.map_or(Data::None, |chain| Data::Goto(chain.text().to_owned()))
        }
    }
}

fn comment_text(mut data: &[u8]) -> String {
    while let [kind, length, rest @ ..] = data {
        let Some((value, after)) = rest.split_at_checked(usize::from(*length)) else { break };
        if *kind == 0 {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return String::from_utf8_lossy(text).into_owned();
        }
        data = after;
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_back() {
        let mut bytes = vec![9, 1, 7];
        bytes.extend(comment_bytes("clusterd"));
        assert_eq!(comment_text(&bytes), "clusterd");
        assert_eq!(comment_text(&[0, 200, 1]), "");
    }
}
