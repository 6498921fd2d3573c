//! Links in proxied pages, so that they lead through the proxy again.
//!
//! Why a small scanner: only the values of a few attributes change; everything else must pass byte
//! by byte (apimachinery `util/proxy/transport.go` says which attributes).

/// Attributes that hold an address, by tag.
const LINKS: [(&str, &[&str]); 19] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where a proxied page comes from and where its links should lead.
pub struct Place<'a> {
    /// The proxy's path on this server, as in `/api/v1/namespaces/a/pods/b/proxy`.
    pub prefix: &'a str,
    /// The host and port that was dialled.
    pub target: &'a str,
    /// The host that the client named.
    pub host: &'a str,
}

/// One address of a page or a `Location` header, made to lead through the proxy.
pub fn address(place: &Place<'_>, text: &str) -> String {
    let (host, path) = match split(text) {
        Some(parts) => parts,
        None => return text.to_owned(),
    };
    let other_host = !host.is_empty() && host != place.target && host != place.host;
    if other_host || !path.starts_with('/') || path.starts_with(place.prefix) {
        return text.to_owned();
    }
    format!("{}{path}", place.prefix)
}

/// Host ("" for none) and the rest of an address; `None` for schemes that are no HTTP.
fn split(text: &str) -> Option<(&str, &str)> {
    let rest = match text.split_once("://") {
        Some(("http" | "https", rest)) => rest,
        Some(_) => return None,
        None => match text.strip_prefix("//") {
            Some(rest) => rest,
            None => return Some(("", text)),
        },
    };
    let end = rest.find('/').unwrap_or(rest.len());
    Some((&rest[..end], if end == rest.len() { "/" } else { &rest[end..] }))
}

/// A page with its addresses changed.
pub fn page(html: &str, place: &Place<'_>) -> String {
    let mut out = String::with_capacity(html.len() + html.len() / 8);
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with("<!--") {
            let end = rest.find("-->").map_or(rest.len(), |end| end + 3);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let end = tag_end(rest);
        out.push_str(&tag(&rest[..end], place));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// The length of the tag that a text begins with; quotes may hold a `>`.
fn tag_end(text: &str) -> usize {
    let mut quote = None;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (None, '>') => return at + 1,
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    text.len()
}

fn tag(text: &str, place: &Place<'_>) -> String {
    let name_end =
        text[1..].find(|c: char| !c.is_ascii_alphanumeric()).map_or(text.len(), |end| end + 1);
    let name = text[1..name_end].to_ascii_lowercase();
    let Some((_, links)) = LINKS.iter().find(|(tag, _)| *tag == name) else {
        return text.to_owned();
    };
    let mut out = text[..name_end].to_owned();
    let mut rest = &text[name_end..];
    while let Some(equals) = rest.find('=') {
        let before = rest[..equals].trim_end();
        let attribute = before.rsplit(|c: char| c.is_whitespace() || c == '/').next();
        let attribute = attribute.unwrap_or("").to_ascii_lowercase();
        let known = links.contains(&attribute.as_str());
        out.push_str(&rest[..=equals]);
        rest = &rest[equals + 1..];
        let spaces = rest.len() - rest.trim_start().len();
        out.push_str(&rest[..spaces]);
        rest = &rest[spaces..];
        let (open, value, after) = value(rest);
        let quote = open.map(String::from).unwrap_or_default();
        let shown = if known { address(place, value) } else { value.to_owned() };
        out.push_str(&format!("{quote}{shown}{quote}"));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// An attribute's quote, value, and what follows.
fn value(text: &str) -> (Option<char>, &str, &str) {
    match text.chars().next() {
        Some(quote @ ('"' | '\'')) => match text[1..].find(quote) {
            Some(end) => (Some(quote), &text[1..=end], &text[end + 2..]),
            None => (None, text, ""),
        },
        _ => {
            let end = text.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(text.len());
            (None, &text[..end], &text[end..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> =
        Place { prefix: "/api/v1/namespaces/a/pods/b/proxy", target: "10.42.0.5:80", host: "h:1" };

    #[test]
    fn links_of_the_same_host_lead_through_the_proxy() {
        let prefix = PLACE.prefix;
        for (page_in, want) in [
            ("<a href=\"/x?y=1\">t</a>", format!("<a href=\"{prefix}/x?y=1\">t</a>")),
            ("<IMG alt='a=b' src='/i.png'/>", format!("<IMG alt='a=b' src='{prefix}/i.png'/>")),
            ("<a href=/x>", format!("<a href={prefix}/x>")),
            ("<a href=\"http://10.42.0.5:80/x\">", format!("<a href=\"{prefix}/x\">")),
            ("<a href=\"x/y\">", "<a href=\"x/y\">".to_owned()),
            ("<a href=\"https://other/x\">", "<a href=\"https://other/x\">".to_owned()),
            ("<p href=\"/x\">1 < 2", "<p href=\"/x\">1 < 2".to_owned()),
            ("<!-- <a href=\"/x\"> -->", "<!-- <a href=\"/x\"> -->".to_owned()),
            ("<a href=\"/x", "<a href=\"/x".to_owned()),
        ] {
            assert_eq!(page(page_in, &PLACE), want, "{page_in}");
        }
    }

    #[test]
    fn what_leads_through_the_proxy_already_stays() {
        let there = format!("{}/x", PLACE.prefix);
        assert_eq!(address(&PLACE, &there), there);
    }
}
