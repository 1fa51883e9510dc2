//! What the balancer counts, and the names under which it tells it. docs/operations.md has a table of
//! them.

use ledger::metrics::{Counter, Labels, Page};

use crate::backends::{Backends, NobodyTakes};

/// What is counted of connections; what was handed over is counted for each API
/// ([`Backends::views`]).
#[derive(Debug, Default)]
pub struct LbMetrics {
    /// Connections that clients opened.
    pub accepted: Counter,
    refused_for_want_of_apis: Counter,
    refused_as_all_were_full: Counter,
    refused_for_number: Counter,
}

impl LbMetrics {
    /// Counts a connection that nobody takes.
    pub fn refused(&self, why: NobodyTakes) {
        match why {
            NobodyTakes::NoneAlive => self.refused_for_want_of_apis.add_one(),
            NobodyTakes::AllFull => self.refused_as_all_were_full.add_one(),
            NobodyTakes::TooMany => self.refused_for_number.add_one(),
        }
    }

    /// Tells all of it.
    pub fn fill(&self, page: &mut Page, backends: &Backends) {
        let api = |name: String| -> Labels { vec![("api", name)] };
        page.counter(
            "router_lb_connections_accepted",
            "Connections that clients opened.",
            &self.accepted,
        );
        page.counters(
            "router_lb_connections_handed_over",
            "Connections that were handed over, by API.",
            backends.views().map(|view| (api(view.name), view.handed_over_count)),
        );
        let reason = |reason: &str| -> Labels { vec![("reason", reason.to_owned())] };
        page.counters(
            "router_lb_connections_refused",
            "Connections that nobody took: no API was alive, all were full, or too many were open.",
            [
                (reason("none_alive"), &self.refused_for_want_of_apis),
                (reason("all_full"), &self.refused_as_all_were_full),
                (reason("too_many"), &self.refused_for_number),
            ],
        );
        page.gauges(
            "router_lb_api_alive",
            "Whether the API is connected and not ending.",
            backends.views().map(|view| (api(view.name), view.is_alive)),
        );
    }
}
