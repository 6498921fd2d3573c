//! Accepts in Docker's chain DOCKER-USER, labelled as ours.
//!
//! Why there: Docker sets the policy of its FORWARD chain to drop, and an accept in another table
//! cannot override that. Docker keeps DOCKER-USER's rules when it starts again, but a firewall
//! that is reloaded does not, so this is checked again whenever the ruleset changes.
//!
//! The chain is in nftables (also where `iptables` is the nft variant) or in the old x_tables. The
//! first is spoken to by netlink. The second has no netlink interface; its own program is used.

use std::process::Command;

use crate::net::netlink::Socket;
use crate::net::nft::{Expr, Transaction, Verdict, chains, rules};

use super::links::POD_LINK_PREFIX;

/// The table that has Docker's chain.
pub const TABLE: &str = "filter";
const CHAIN: &str = "DOCKER-USER";
/// The comment of each of our rules.
const LABEL: &str = "clusterd";
/// The program that speaks to x_tables.
const LEGACY: &str = "iptables-legacy";
/// The tables that x_tables has in this namespace; reading it loads no module.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";

/// The two rules: what comes from a pod, what goes to a pod.
const RULES: [(&str, fn(&mut Expr<'_>)); 2] = [
    ("-i", |rule| {
        rule.from_link(POD_LINK_PREFIX);
    }),
    ("-o", |rule| {
        rule.to_link(POD_LINK_PREFIX);
    }),
];

/// Where Docker has its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In nftables.
    Nftables,
    /// In x_tables.
    Legacy,
}

/// Whether the old x_tables are in use here.
fn legacy_used() -> bool {
    let tables = std::fs::read_to_string(LEGACY_TABLES).unwrap_or_default();
    tables.lines().any(|table| table == TABLE)
}

/// Finds Docker's chain.
pub fn backends() -> anyhow::Result<Vec<Backend>> {
    let mut found = Vec::new();
    let mut socket = Socket::open()?;
    if chains(&mut socket, TABLE)?.iter().any(|chain| chain == CHAIN) {
        found.push(Backend::Nftables);
    }
    if legacy_used() && legacy(&["-n", "-L", CHAIN])?.is_some() {
        found.push(Backend::Legacy);
    }
    Ok(found)
}

/// Adds what is missing; says whether anything was.
pub fn ensure() -> anyhow::Result<bool> {
    let mut changed = false;
    for backend in backends()? {
        let now = match backend {
            Backend::Nftables => ensure_nft()?,
            Backend::Legacy => ensure_legacy()?,
        };
        if now {
            tracing::info!(?backend, "accepted pod traffic in Docker's {CHAIN} chain");
        }
        changed |= now;
    }
    Ok(changed)
}

/// Adds what is missing in the old x_tables, which tell nobody when they change: to be called
/// before a pod relies on it. It costs one read of a file where they are not in use.
pub fn ensure_before_pod() -> anyhow::Result<()> {
    if legacy_used() {
        ensure()?;
    }
    Ok(())
}

/// Removes our rules.
pub fn remove() -> anyhow::Result<()> {
    for backend in backends()? {
        match backend {
            Backend::Nftables => remove_nft()?,
            Backend::Legacy => {
                for (flag, _) in RULES {
                    while legacy(&legacy_rule("-D", flag))?.is_some() {}
                }
            }
        }
    }
    Ok(())
}

/// How many rules of ours there are.
pub fn count() -> anyhow::Result<usize> {
    let mut count = 0;
    for backend in backends()? {
        count += match backend {
            Backend::Nftables => ours_in_nft()?.1.len(),
            Backend::Legacy => {
                let mut found = 0;
                for (flag, _) in RULES {
                    found += usize::from(legacy(&legacy_rule("-C", flag))?.is_some());
                }
                found
            }
        };
    }
    Ok(count)
}

fn ours_in_nft() -> anyhow::Result<(Socket, Vec<u64>)> {
    let mut socket = Socket::open()?;
    let all = rules(&mut socket, TABLE, CHAIN)?;
    let ours = all.into_iter().filter(|(_, comment)| comment == LABEL);
    Ok((socket, ours.map(|(handle, _)| handle).collect()))
}

/// Adds what is missing in nftables; nothing where Docker's chain is not there.
pub fn ensure_nft() -> anyhow::Result<bool> {
    let mut socket = Socket::open()?;
    if !chains(&mut socket, TABLE)?.iter().any(|chain| chain == CHAIN) {
        return Ok(false);
    }
    let (mut socket, ours) = ours_in_nft()?;
    if ours.len() == RULES.len() {
        return Ok(false);
    }
    let mut transaction = Transaction::on(TABLE);
    for handle in ours {
        transaction.delete_rule(CHAIN, handle);
    }
    for (_, matches) in RULES {
        transaction.insert_rule(CHAIN, LABEL, |rule| {
            matches(rule);
            rule.count().verdict(Verdict::Accept);
        });
    }
    transaction.commit(&mut socket, "accept pods in DOCKER-USER")?;
    Ok(true)
}

fn remove_nft() -> anyhow::Result<()> {
    let (mut socket, ours) = ours_in_nft()?;
    let mut transaction = Transaction::on(TABLE);
    for handle in ours {
        transaction.delete_rule(CHAIN, handle);
    }
    Ok(transaction.commit(&mut socket, "remove our rules from DOCKER-USER")?)
}

fn ensure_legacy() -> anyhow::Result<bool> {
    let mut changed = false;
    for (flag, _) in RULES {
        if legacy(&legacy_rule("-C", flag))?.is_none() {
            let added = legacy(&legacy_rule("-I", flag))?.is_some();
            anyhow::ensure!(added, "{LEGACY} would not accept pods in {CHAIN}");
            changed = true;
        }
    }
    Ok(changed)
}

fn legacy_rule<'a>(verb: &'a str, flag: &'a str) -> [&'a str; 10] {
    [verb, CHAIN, flag, "cld+", "-m", "comment", "--comment", LABEL, "-j", "ACCEPT"]
}

/// Runs the old program: its output, or nothing when it says no or is not there.
fn legacy(arguments: &[&str]) -> anyhow::Result<Option<String>> {
    match Command::new(LEGACY).arg("-w").args(arguments).output() {
        Ok(output) if output.status.success() => {
            Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
