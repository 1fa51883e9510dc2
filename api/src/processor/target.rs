//! The address of a processor.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

const HTTP_PORT: u16 = 80;

/// The address of a processor, as in `http://payment-processor-default:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host's name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What is sent as `Host`.
    pub authority: String,
}

/// Why a text is not the address of a processor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address such as http://payment-processor-default:8080")]
pub struct TargetError {
    text: String,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || TargetError { text: text.to_owned() };
        let uri: Uri = text.parse().map_err(|_| error())?;
        let is_plain = uri.scheme_str() == Some("http")
            && matches!(
                uri.path_and_query().map(hyper::http::uri::PathAndQuery::as_str),
                None | Some("/")
            );
        let authority = uri.authority().filter(|_| is_plain).ok_or_else(error)?;
        if authority.as_str().contains('@') {
            return Err(error());
        }
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(HTTP_PORT),
            authority: authority.as_str().to_owned(),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        if host.contains(':') {
            write!(formatter, "http://[{host}]:{}", self.port)
        } else {
            write!(formatter, "http://{host}:{}", self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_port() {
        for (text, host, port) in [
            ("http://127.0.0.1:8001", "127.0.0.1", 8001),
            ("http://payment-processor-default:8080/", "payment-processor-default", 8080),
            ("http://[::1]:8001", "::1", 8001),
            ("http://processor", "processor", 80),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port));
            assert_eq!(target.to_string().parse::<Target>().unwrap().host, host);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_text() {
        for text in
            ["", "127.0.0.1:8001", "https://x", "http://x/payments", "http://a@b", "http://"]
        {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
