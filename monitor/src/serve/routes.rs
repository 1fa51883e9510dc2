//! What is asked, and who answers it.

use std::rc::Rc;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use ledger::clock::Monotonic;
use ledger::query::parameter;
use ledger::volume::Volume;
use ledger::{CorrelationId, Processor, RangeMs};
use tokio::sync::{Notify, Semaphore};

use super::answers::{Answer, error, events, get_only, json, refused, text};
use super::guard::{check_host, check_site};
use crate::merge::merge;
use crate::page::ask::StoreLine;
use crate::page::life::Lives;
use crate::page::live::Live;
use crate::page::totals::RangeTotals;
use crate::page::{CONTENT_SECURITY_POLICY, Page};
use crate::shared::SharedGathering;
use crate::status::facts::Facts;
use crate::text;

const HTML: &str = "text/html; charset=utf-8";

/// Those who may wait for metrics at a time.
pub const READERS_MAX: usize = 8;

/// Those who may wait at a time for the store, or for a search in the journals.
pub const QUESTIONS_MAX: usize = 8;

/// How a connection stands, as far as its time is limited.
#[derive(Default)]
pub struct Standing {
    /// Its request is there.
    pub asked: Notify,
    /// It has become a watcher's: from here on it may last.
    pub watches: Notify,
    /// Its watcher reads too slowly.
    pub given_up: Rc<Notify>,
}

/// What answers requests.
pub struct Routes {
    shared: Rc<SharedGathering>,
    live: Rc<Live>,
    store: StoreLine,
    /// Those who wait for metrics, and for the store or a search.
    readers: Semaphore,
    questions: Semaphore,
    lives: Lives,
    page: Page,
    /// Names that this server goes by.
    allowed_hosts: Vec<String>,
}

impl Routes {
    /// Answers about the router on this volume.
    #[must_use]
    pub fn new(volume: &Volume, allowed_hosts: &[String]) -> Self {
        let clock = Monotonic::start();
        let since = move || clock.elapsed();
        let shared = Rc::new(SharedGathering::new(volume.run(), since));
        Self {
            live: Rc::new(Live::new(Rc::clone(&shared), volume.run())),
            shared,
            store: StoreLine::new(&volume.store_socket(), Rc::new(since)),
            readers: Semaphore::new(READERS_MAX),
            questions: Semaphore::new(QUESTIONS_MAX),
            lives: Lives::new(volume.clone()),
            page: Page::new(),
            allowed_hosts: allowed_hosts.to_vec(),
        }
    }

    /// Answers a request.
    pub async fn answer(&self, request: &Request<Incoming>, standing: &Standing) -> Answer {
        standing.asked.notify_one();
        if let Err(refusal) = check_host(request.headers(), request.uri(), &self.allowed_hosts) {
            return refused(&refusal);
        }
        let path = request.uri().path();
        let id = path.strip_prefix("/payments/");
        if !matches!(path, "/" | "/metrics" | "/events" | "/summary") && id.is_none() {
            return error(StatusCode::NOT_FOUND, "there is nothing at this path");
        }
        if request.method() != Method::GET {
            return get_only();
        }
        if path == "/" {
            return self.page();
        }
        if let Err(refusal) = check_site(request.headers()) {
            return refused(&refusal);
        }
        if path == "/events" {
            return self.watch(standing);
        }
        // Each kind has places of its own, so that none is kept from its answer by the others.
        let places = if path == "/metrics" { &self.readers } else { &self.questions };
        let Ok(_place) = places.try_acquire() else {
            return error(
                StatusCode::SERVICE_UNAVAILABLE,
                "as many wait for such an answer as may; ask again in a second",
            );
        };
        match (path, id) {
            (_, Some(id)) => self.life(id).await,
            ("/summary", _) => self.summarize(request.uri().query().unwrap_or_default()).await,
            _ => self.metrics().await,
        }
    }

    fn page(&self) -> Answer {
        let mut answer = text(HTML, self.page.html());
        let policy = self.page.content_security_policy();
        answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
        answer
    }

    async fn metrics(&self) -> Answer {
        match self.shared.readings().await {
            Ok(readings) => text(text::CONTENT_TYPE, merge(&readings)),
            Err(why) => {
                tracing::warn!("{why}");
                error(StatusCode::SERVICE_UNAVAILABLE, &why.to_string())
            }
        }
    }

    fn watch(&self, standing: &Standing) -> Answer {
        match self.live.watch(Rc::clone(&standing.given_up)) {
            Some(receiver) => {
                standing.watches.notify_one();
                events(receiver)
            }
            None => error(
                StatusCode::SERVICE_UNAVAILABLE,
                "as many watch as may; close another page, and it goes on",
            ),
        }
    }

    async fn summarize(&self, query: &str) -> Answer {
        let range = match range(query) {
            Ok(range) => range,
            Err(sentence) => return error(StatusCode::BAD_REQUEST, &sentence),
        };
        let totals = match self.store.summarize(range).await {
            Ok(totals) => totals,
            Err(why) => return error(StatusCode::SERVICE_UNAVAILABLE, &why.to_string()),
        };
        let fees_bp = match self.shared.readings().await {
            Ok(readings) => fees_bp(Facts::of(&readings)),
            Err(why) => {
                tracing::warn!("{why}");
                [None, None]
            }
        };
        json(&RangeTotals::of(range, &totals, fees_bp))
    }

    async fn life(&self, id: &str) -> Answer {
        let id: CorrelationId = match id.parse() {
            Ok(id) => id,
            Err(why) => return error(StatusCode::BAD_REQUEST, &format!("{why}")),
        };
        match self.lives.tell(&self.store, id).await {
            Ok(Some(life)) => json(&life),
            Ok(None) => {
                error(StatusCode::NOT_FOUND, "no payment with this correlationId was accepted")
            }
            Err(why) => {
                tracing::warn!("the life of {id} cannot be told: {why}");
                error(StatusCode::SERVICE_UNAVAILABLE, &why.to_string())
            }
        }
    }
}

/// The span of time that a query asks for, as an API reads it.
fn range(query: &str) -> Result<RangeMs, String> {
    let from = parameter(query, "from").map_err(|why| why.to_string())?;
    let to = parameter(query, "to").map_err(|why| why.to_string())?;
    RangeMs::from_bounds(from.as_deref(), to.as_deref()).map_err(|why| why.to_string())
}

fn fees_bp(facts: Facts<'_>) -> [Option<u64>; 2] {
    Processor::ALL.map(|processor| {
        let labels = [("processor", &*processor.to_string())];
        facts.agreed("router_processor_fee_basis_points", &labels)
    })
}
