//! Who may ask: what is meant for this server, and comes from no other site's page.
//!
//! A browser lets any page send requests to this address. It tells of them by `Sec-Fetch-Site`; and a
//! page whose own name was turned to this address (DNS rebinding) by its `Host`, because an attacker has
//! a name and not this address. Prometheus and curl send neither, or an address.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, StatusCode, Uri};

/// Why a request is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The status of the answer.
    pub status: StatusCode,
    /// Why, in a sentence.
    pub sentence: String,
}

/// Refuses a request that is meant for another name than an address, `localhost` or one of these.
///
/// # Errors
/// It is refused.
pub fn check_host(headers: &HeaderMap, uri: &Uri, allowed: &[String]) -> Result<(), Refusal> {
    let of_headers = headers.get_all(HOST).iter().map(|value| value.to_str().unwrap_or("?"));
    let of_uri = uri.authority().map(Authority::as_str);
    for host in of_headers.chain(of_uri) {
        let name = name(host);
        if !is_local(&name) && !allowed.iter().any(|other| other.eq_ignore_ascii_case(&name)) {
            let sentence = format!(
                "this server is not called {name:?}; use its address, or let it be called so with \
                 --allow-host"
            );
            return Err(Refusal { status: StatusCode::MISDIRECTED_REQUEST, sentence });
        }
    }
    Ok(())
}

/// Refuses a request that a page of another site makes.
///
/// # Errors
/// It is refused.
pub fn check_site(headers: &HeaderMap) -> Result<(), Refusal> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if matches!(site, None | Some(b"same-origin" | b"none")) {
        return Ok(());
    }
    let sentence = "only this server's own page may ask for this".to_owned();
    Err(Refusal { status: StatusCode::FORBIDDEN, sentence })
}

/// The name or address of a host, without its port.
fn name(host: &str) -> String {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn is_local(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_host_is_an_address_or_a_name_that_is_allowed() {
        let allowed = ["router.example".to_owned()];
        let check = |hosts: &[&'static str], uri: &str| {
            check_host(&headers("host", hosts), &uri.parse().unwrap(), &allowed)
        };
        for host in [
            "127.0.0.1",
            "127.0.0.1:9100",
            "[::1]:9100",
            "[::1]",
            "10.0.0.7:80",
            "localhost:9100",
            "LocalHost",
            "here.localhost",
            "router.example:9100",
            "Router.Example.",
        ] {
            assert_eq!(check(&[host], "/"), Ok(()), "{host}");
        }
        assert_eq!(check(&[], "/"), Ok(()), "HTTP/1.0 has none");
        for host in
            ["evil.example", "localhost.evil.example:9100", "127.0.0.1.evil.example", "", ":1"]
        {
            let refusal = check(&[host], "/").unwrap_err();
            assert_eq!(refusal.status, StatusCode::MISDIRECTED_REQUEST, "{host}");
            assert!(refusal.sentence.contains("--allow-host"), "{refusal:?}");
        }
        assert!(check(&["localhost", "evil.example"], "/").is_err());
        assert!(check(&["localhost"], "http://evil.example/").is_err());
    }

    #[test]
    fn a_page_of_another_site_is_refused() {
        for (site, is_allowed) in [
            ("same-origin", true),
            ("none", true),
            ("same-site", false),
            ("cross-site", false),
            ("", false),
        ] {
            assert_eq!(
                check_site(&headers("sec-fetch-site", &[site])).is_ok(),
                is_allowed,
                "{site}"
            );
        }
        assert_eq!(check_site(&HeaderMap::new()), Ok(()));
    }
}
