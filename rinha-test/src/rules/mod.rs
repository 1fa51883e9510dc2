//! The contest's rules for a compose file, checked before it is sent: what a service may cost, how it
//! may be connected, and where it answers.

mod compose;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use self::compose::{Compose, ComposeError};
use self::compose::{Service, resolved};

/// The external network that reaches the processors.
pub const PROCESSOR_NETWORK: &str = "payment-processor";

/// The port that the contest's client posts to.
pub const PORT: &str = "9999";

/// CPUs over all services, in billionths.
pub const NANO_CPUS_MAX: u64 = 1_500_000_000;

/// Megabytes of memory over all services, as Docker counts them.
pub const MEMORY_BYTES_MAX: u64 = 350 << 20;

/// API instances behind the balancer, at least.
pub const INSTANCES_MIN: usize = 2;

/// What the contest's machine is.
const PLATFORM: &str = "linux/amd64";

/// The settings of `rinha-test rules`.
#[derive(clap::Args, Clone, Debug)]
pub struct RulesSettings {
    /// The compose file
    pub file: PathBuf,
    /// Demand also what a file that is sent in needs: published images, and nothing to build
    #[arg(long)]
    pub published: bool,
}

/// Why a file could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It cannot be read.
    #[error("cannot read {path}: {cause}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        cause: io::Error,
    },
    /// It is no compose file.
    #[error("{path}: {cause}", path = .path.display())]
    Compose {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: ComposeError,
    },
}

/// A rule that a compose file breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Nothing would run.
    #[error("it has no services")]
    NoServices,
    /// A service without an image.
    #[error("{0} names no image")]
    NoImage(String),
    /// An image that nobody could pull.
    #[error("the image of {0} is not that of a registry, with a namespace and a tag: {1}")]
    NotPublished(String, String),
    /// Nothing is built where it is run.
    #[error("{0} is to be built, but only published images are run")]
    Built(String),
    /// A service without a limit of CPUs that can be read.
    #[error("{0} needs deploy.resources.limits.cpus, a number above 0")]
    NoCpus(String),
    /// A service without a limit of memory that can be read.
    #[error("{0} needs deploy.resources.limits.memory, such as 110MB")]
    NoMemory(String),
    /// More CPUs than there are.
    #[error("the limits add up to {cpus} CPUs, and 1.50 is the most", cpus = cpus(*.0))]
    TooManyCpus(u64),
    /// More memory than there is.
    #[error("the limits add up to {megabytes} MB, and 350 is the most", megabytes = megabytes(*.0))]
    TooMuchMemory(u64),
    /// Another network than a bridge, by mode.
    #[error("{0} has the network mode {1}; only bridge networks are allowed")]
    NetworkMode(String, String),
    /// Another network than a bridge, by driver.
    #[error("the network {0} has the driver {1}; only bridge networks are allowed")]
    Driver(String, String),
    /// A network that is not described.
    #[error("{0} is on the network {1}, which the file does not describe")]
    UnknownNetwork(String, String),
    /// No way to the processors.
    #[error("there is no external network payment-processor")]
    NoProcessorNetwork,
    /// Too much power.
    #[error("{0} is privileged")]
    Privileged(String),
    /// More of one service than the limits say.
    #[error("{0} has replicas; each instance is a service of its own")]
    Replicas(String),
    /// Another platform.
    #[error("{0} is for the platform {1}, and the contest's machine is linux/amd64")]
    Platform(String, String),
    /// Nobody answers the contest's client, or it is not known who does.
    #[error("port 9999 is published by {0} services, and should be by one, the balancer")]
    Port(usize),
    /// Not enough instances.
    #[error(
        "beside the one with port 9999, {0} services are on the network payment-processor, and at \
        least two API instances should be"
    )]
    Instances(usize),
}

/// Billionths of a CPU as CPUs.
fn cpus(nano: u64) -> String {
    rust_decimal::Decimal::from_i128_with_scale(i128::from(nano), 9).normalize().to_string()
}

fn megabytes(bytes: u64) -> String {
    // Rounded up, so that more than the most never looks like it.
    bytes.div_ceil(1 << 20).to_string()
}

/// What a file's services may use together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Billionths of a CPU.
    pub nano_cpus: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// Checks a file, and prints what it found. Gives whether it keeps the rules.
///
/// # Errors
/// It cannot be read, or is no compose file.
pub fn main(settings: &RulesSettings) -> Result<bool, RulesError> {
    let path = &settings.file;
    let text = std::fs::read_to_string(path)
        .map_err(|cause| RulesError::Read { path: path.clone(), cause })?;
    let compose =
        Compose::parse(&text).map_err(|cause| RulesError::Compose { path: path.clone(), cause })?;
    let broken = check(&compose, settings.published);
    let Sums { nano_cpus, memory_bytes } = sums(&compose);
    println!(
        "{}: {} services, {} of 1.50 CPUs, {} of 350 MB",
        path.display(),
        compose.services.len(),
        cpus(nano_cpus),
        megabytes(memory_bytes)
    );
    for rule in &broken {
        println!("broken: {rule}");
    }
    if broken.is_empty() {
        println!("it keeps the contest's rules");
    }
    Ok(broken.is_empty())
}

/// The sums of all limits that can be read.
#[must_use]
pub fn sums(compose: &Compose) -> Sums {
    let services = || compose.services.values();
    Sums {
        nano_cpus: services().filter_map(Service::nano_cpus).sum(),
        memory_bytes: services().filter_map(Service::memory_bytes).sum(),
    }
}

/// Everything that a file breaks. `published`: it is to be sent in.
#[must_use]
pub fn check(compose: &Compose, published: bool) -> Vec<Broken> {
    if compose.services.is_empty() {
        return vec![Broken::NoServices];
    }
    let mut broken = Vec::new();
    for (name, service) in &compose.services {
        check_service(name, service, published, &mut broken);
        check_service_networks(name, service, compose, &mut broken);
    }
    let Sums { nano_cpus, memory_bytes } = sums(compose);
    if nano_cpus > NANO_CPUS_MAX {
        broken.push(Broken::TooManyCpus(nano_cpus));
    }
    if memory_bytes > MEMORY_BYTES_MAX {
        broken.push(Broken::TooMuchMemory(memory_bytes));
    }
    check_networks(compose, &mut broken);
    check_shape(compose, &mut broken);
    broken
}

fn check_service(name: &str, service: &Service, published: bool, broken: &mut Vec<Broken>) {
    let name = name.to_owned();
    match service.image() {
        None => broken.push(Broken::NoImage(name.clone())),
        Some(image) if published && !is_published(&image) => {
            broken.push(Broken::NotPublished(name.clone(), image));
        }
        Some(_) => {}
    }
    if published && service.build.is_some() {
        broken.push(Broken::Built(name.clone()));
    }
    if service.nano_cpus().is_none() {
        broken.push(Broken::NoCpus(name.clone()));
    }
    if service.memory_bytes().is_none() {
        broken.push(Broken::NoMemory(name.clone()));
    }
    if service.privileged {
        broken.push(Broken::Privileged(name.clone()));
    }
    if service.has_replicas() {
        broken.push(Broken::Replicas(name.clone()));
    }
    if let Some(platform) = service.platform.as_deref().map(resolved)
        && platform != PLATFORM
    {
        broken.push(Broken::Platform(name, platform));
    }
}

/// Whether an image can be pulled by its name: a namespace and a tag, as in `someone/router:1.0`.
fn is_published(image: &str) -> bool {
    let Some((namespace, rest)) = image.rsplit_once('/') else { return false };
    let Some((repository, tag)) = rest.split_once(':') else { return false };
    !namespace.is_empty() && !repository.is_empty() && !tag.is_empty()
}

fn check_service_networks(
    name: &str,
    service: &Service,
    compose: &Compose,
    broken: &mut Vec<Broken>,
) {
    if let Some(mode) = service.network_mode.as_deref().map(resolved)
        && mode != "bridge"
    {
        broken.push(Broken::NetworkMode(name.to_owned(), mode));
    }
    for network in service.network_names() {
        if !compose.networks.contains_key(network) && network != "default" {
            broken.push(Broken::UnknownNetwork(name.to_owned(), network.to_owned()));
        }
    }
}

fn check_networks(compose: &Compose, broken: &mut Vec<Broken>) {
    for (name, network) in &compose.networks {
        if let Some(driver) = network.as_ref().and_then(|network| network.driver.as_ref())
            && driver != "bridge"
        {
            broken.push(Broken::Driver(name.clone(), driver.clone()));
        }
    }
    if compose.processor_network().is_none() {
        broken.push(Broken::NoProcessorNetwork);
    }
}

fn check_shape(compose: &Compose, broken: &mut Vec<Broken>) {
    let publishes = |service: &Service| service.published_ports().iter().any(|port| port == PORT);
    let balancers = compose.services.values().filter(|service| publishes(service)).count();
    if balancers != 1 {
        broken.push(Broken::Port(balancers));
    }
    let Some(network) = compose.processor_network() else { return };
    let reaches = |service: &Service| service.network_names().any(|name| name == network);
    let is_instance = |service: &&Service| reaches(service) && !publishes(service);
    let instances = compose.services.values().filter(is_instance).count();
    if instances < INSTANCES_MIN {
        broken.push(Broken::Instances(instances));
    }
}
