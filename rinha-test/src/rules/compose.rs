//! A compose file, as far as the contest's rules look at it.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::PROCESSOR_NETWORK;

/// Why a text is no compose file.
#[derive(Debug, thiserror::Error)]
#[error("it is no compose file: {0}")]
pub struct ComposeError(String);

/// A compose file.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Compose {
    /// What runs, unless a profile is asked for.
    #[serde(default)]
    pub services: BTreeMap<String, Service>,
    /// How it is connected.
    #[serde(default)]
    pub networks: BTreeMap<String, Option<Network>>,
}

/// A service.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Service {
    image: Option<String>,
    pub(super) build: Option<IgnoredAny>,
    #[serde(default)]
    profiles: Vec<String>,
    pub(super) platform: Option<String>,
    pub(super) network_mode: Option<String>,
    #[serde(default)]
    pub(super) privileged: bool,
    scale: Option<IgnoredAny>,
    deploy: Option<Deploy>,
    #[serde(default)]
    networks: ServiceNetworks,
    #[serde(default)]
    ports: Vec<Port>,
}

/// A network.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Network {
    name: Option<String>,
    pub(super) driver: Option<String>,
    external: Option<External>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Deploy {
    replicas: Option<IgnoredAny>,
    resources: Option<Resources>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Resources {
    limits: Option<Limits>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Limits {
    cpus: Option<Value>,
    memory: Option<Value>,
}

/// A number or a text.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Value {
    Whole(u64),
    Number(f64),
    Text(String),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Whole(number) => number.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => resolved(text),
        }
    }
}

/// A list of names, or settings by name.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum ServiceNetworks {
    List(Vec<String>),
    Map(BTreeMap<String, Option<IgnoredAny>>),
}

impl Default for ServiceNetworks {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum External {
    Flag(bool),
    Named { name: Option<String> },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Port {
    Long { published: Option<Value> },
    Short(Value),
}

impl Compose {
    /// Reads a file.
    ///
    /// # Errors
    /// It is not YAML, or not of this form.
    pub fn parse(text: &str) -> Result<Self, ComposeError> {
        let mut compose: Self =
            serde_saphyr::from_str(text).map_err(|error| ComposeError(error.to_string()))?;
        compose.services.retain(|_, service| service.profiles.is_empty());
        Ok(compose)
    }

    /// The key of the external network that reaches the processors.
    #[must_use]
    pub fn processor_network(&self) -> Option<&str> {
        let found = self.networks.iter().find(|(key, network)| {
            let Some(Network { name, external: Some(external), .. }) = network else {
                return false;
            };
            let (is_external, old_name) = match external {
                External::Flag(flag) => (*flag, None),
                External::Named { name } => (true, name.as_ref()),
            };
            let name = name.as_ref().or(old_name).unwrap_or(key);
            is_external && resolved(name) == PROCESSOR_NETWORK
        });
        found.map(|(key, _)| key.as_str())
    }
}

impl Service {
    pub(super) fn image(&self) -> Option<String> {
        self.image.as_deref().map(resolved).filter(|image| !image.is_empty())
    }

    fn limits(&self) -> Option<&Limits> {
        self.deploy.as_ref()?.resources.as_ref()?.limits.as_ref()
    }

    /// Billionths of a CPU that it may use; nothing if it has no limit, or none that can be read.
    pub(super) fn nano_cpus(&self) -> Option<u64> {
        let cpus: Decimal = self.limits()?.cpus.as_ref()?.text().parse().ok()?;
        let nano = cpus.checked_mul(Decimal::from(1_000_000_000))?.ceil().to_u64()?;
        (nano > 0).then_some(nano)
    }

    /// Bytes of memory that it may use; nothing if it has no limit, or none that can be read.
    pub(super) fn memory_bytes(&self) -> Option<u64> {
        memory_bytes(&self.limits()?.memory.as_ref()?.text()).filter(|bytes| *bytes > 0)
    }

    pub(super) fn has_replicas(&self) -> bool {
        self.scale.is_some() || self.deploy.as_ref().is_some_and(|deploy| deploy.replicas.is_some())
    }

    pub(super) fn network_names(&self) -> impl Iterator<Item = &str> {
        let (list, map) = match &self.networks {
            ServiceNetworks::List(names) => (Some(names), None),
            ServiceNetworks::Map(map) => (None, Some(map.keys())),
        };
        list.into_iter().flatten().chain(map.into_iter().flatten()).map(String::as_str)
    }

    /// The ports of the machine that lead to it.
    pub(super) fn published_ports(&self) -> Vec<String> {
        let published = |port: &Port| match port {
            Port::Long { published } => published.as_ref().map(Value::text),
            // [ADDRESS:]PUBLISHED:TARGET[/PROTOCOL]; a target alone is published anywhere.
            Port::Short(value) => {
                let text = value.text();
                let (before, _) = text.rsplit_once(':')?;
                Some(before.rsplit(':').next().unwrap_or(before).to_owned())
            }
        };
        self.ports.iter().filter_map(published).collect()
    }
}

/// Bytes as compose writes them: a number with a unit, whose letters all stand for powers of 1024.
fn memory_bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    let number: Decimal = digits.trim().parse().ok()?;
    number.checked_mul(Decimal::from(1u64 << shift))?.ceil().to_u64()
}

/// A text with the defaults of its variables in their place, as whoever sets none of them has it. A
/// variable without a default is empty then.
pub(super) fn resolved(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result += before;
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((variable, after)) =
            after.strip_prefix('{').and_then(|inner| inner.split_once('}'))
        {
            let default = variable.split_once('-').map_or("", |(_, default)| default);
            result += default;
            rest = after;
        } else {
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            rest = after.trim_start_matches(is_name);
        }
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_have_their_defaults() {
        assert_eq!(resolved("${PORT:-9999}:9999"), "9999:9999");
        assert_eq!(resolved("a-${B-c-d}e"), "a-c-de");
        assert_eq!(resolved("$NAME/x${OTHER}"), "/x");
        assert_eq!(resolved("$$5"), "$5");
        assert_eq!(resolved("plain"), "plain");
        assert_eq!(resolved("${open"), "{open");
    }

    #[test]
    fn memory_is_counted_in_powers_of_1024() {
        assert_eq!(memory_bytes("350MB"), Some(350 << 20));
        assert_eq!(memory_bytes("110M"), Some(110 << 20));
        assert_eq!(memory_bytes("0.5g"), Some(512 << 20));
        assert_eq!(memory_bytes("1024"), Some(1024));
        for text in ["", "MB", "1TB", "-", "1 2MB"] {
            assert_eq!(memory_bytes(text), None, "{text}");
        }
        assert_eq!(memory_bytes("-5M"), None);
    }

    #[test]
    fn ports_are_found_in_every_form() {
        let yaml = "ports: ['9999:80', 7, '127.0.0.1:8001:80/tcp', {target: 1, published: 4}]";
        let service: Service = serde_saphyr::from_str(yaml).unwrap();
        assert_eq!(service.published_ports(), ["9999", "8001", "4"]);
    }

    #[test]
    fn what_is_no_compose_file_is_told() {
        for text in ["services: 5", "{", "services: {a: {ports: 5}}"] {
            assert!(Compose::parse(text).is_err(), "{text}");
        }
        assert!(Compose::parse("x: 1").unwrap().services.is_empty());
    }
}
