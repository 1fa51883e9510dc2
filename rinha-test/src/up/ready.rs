//! Whether the system takes payments yet, and what to tell its user once it does.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use ledger::Processor;

use super::topology::{Processors, Topology};
use crate::http::Http;

/// How long one look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Looks whether the system is ready.
pub struct Readiness {
    http: Http,
    urls: [String; 2],
    simulators: Vec<(Processor, SocketAddr)>,
}

impl Readiness {
    /// Looks at this system.
    #[must_use]
    pub fn of(topology: &Topology) -> Self {
        let simulators = match topology.processors {
            Processors::Simulated(ports) => {
                Processor::ALL.map(|p| (p, (Ipv4Addr::LOCALHOST, ports[p.index()]).into())).to_vec()
            }
            Processors::External(_) => Vec::new(),
        };
        Self {
            http: Http::new(LOOK_TIMEOUT),
            // The summary comes from the store, so it tells of the part that health does not.
            urls: ["health", "payments-summary"]
                .map(|path| format!("{}/{path}", topology.router_url())),
            simulators,
        }
    }

    /// Looks once.
    ///
    /// # Errors
    /// What is still missing, in a few words.
    pub fn look(&self) -> Result<(), String> {
        for (processor, address) in &self.simulators {
            // Their health is not asked for: they answer that once in 5 s, and the APIs need it.
            TcpStream::connect_timeout(address, LOOK_TIMEOUT)
                .map_err(|error| format!("the {processor} processor on {address}: {error}"))?;
        }
        for url in &self.urls {
            match self.http.get(url, &[]) {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => return Err(format!("GET {url} answers {}", answer.status)),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
}

/// What is printed once the system is ready.
#[must_use]
pub fn announcement(topology: &Topology) -> String {
    let router = topology.router_url();
    let default = topology.processor_url(Processor::Default);
    let fallback = topology.processor_url(Processor::Fallback);
    let monitor = topology.monitor_url().map_or(String::new(), |url| {
        format!("  live page           {url}/\n  metrics             {url}/metrics\n")
    });
    let uuid = "$(cat /proc/sys/kernel/random/uuid)";
    format!(
        r#"
ready
  router              {router}
  processor default   {default}
  processor fallback  {fallback}
{monitor}
  post a payment:
    curl -i {router}/payments -H 'Content-Type: application/json' -d "{{\"correlationId\":\"{uuid}\",\"amount\":19.90}}"
  see what was settled:
    curl {router}/payments-summary

"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::topology::API_INSTANCES;

    #[test]
    fn the_announcement_names_all_urls_and_lines_to_try() {
        let text = announcement(&Topology {
            programs: "/bin".into(),
            data: "/data".into(),
            port: 9998,
            processors: Processors::Simulated([7001, 7002]),
            instances: API_INSTANCES,
            allow_purge: false,
            metrics_port: Some(9101),
        });
        assert!(text.contains("\nready\n"), "{text}");
        for url in [
            "router              http://127.0.0.1:9998\n",
            "processor default   http://127.0.0.1:7001\n",
            "processor fallback  http://127.0.0.1:7002\n",
            "live page           http://127.0.0.1:9101/\n",
            "metrics             http://127.0.0.1:9101/metrics\n",
            "curl -i http://127.0.0.1:9998/payments -H 'Content-Type: application/json' -d \"{",
            "curl http://127.0.0.1:9998/payments-summary\n",
        ] {
            assert!(text.contains(url), "{text}");
        }
    }
}
