//! A router and two processors, played by threads of the test.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the router does wrong, with one of its payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Lose,
    Double,
    Alter,
    MisstateCents,
    Refuse,
    RefuseAndRecord,
    ListNothing,
    /// Four answers in a hundred come 5 ms late.
    Slow,
}

/// How late a slow answer comes.
const LATE: Duration = Duration::from_millis(5);

/// One answer in so many is late.
const LATE_EVERY: usize = 25;

/// The payment that something is done wrong with.
const VICTIM: usize = 137;

/// Books by id, for default and fallback: cents.
type Books = [BTreeMap<String, u64>; 2];

struct State {
    fault: Fault,
    posts: usize,
    books: Books,
    /// What the processors were told to be, in the order in which it was.
    configured: Vec<String>,
}

/// A running contest.
pub struct Rinha {
    pub router_url: String,
    pub processor_urls: [String; 2],
    state: Arc<Mutex<State>>,
}

struct Request {
    target: String,
    body: String,
}

type Answer = (u16, String);

impl Rinha {
    pub fn start(fault: Fault) -> Self {
        let state = Arc::new(Mutex::new(State {
            fault,
            posts: 0,
            books: Books::default(),
            configured: Vec::new(),
        }));
        let processor_urls = [0, 1].map(|side: usize| {
            let state = Arc::clone(&state);
            serve(move |request| processor(&mut state.lock().unwrap(), side, request))
        });
        let of_router = Arc::clone(&state);
        let router_url = serve(move |request| {
            let (answer, is_late) = {
                let mut state = of_router.lock().unwrap();
                let answer = router(&mut state, request);
                (answer, fault == Fault::Slow && state.posts.is_multiple_of(LATE_EVERY))
            };
            if is_late {
                std::thread::sleep(LATE);
            }
            answer
        });
        Self { router_url, processor_urls, state }
    }

    /// Payments that were posted.
    pub fn posts(&self) -> usize {
        self.state.lock().unwrap().posts
    }
}

impl Rinha {
    /// What the processors were told to be.
    #[allow(dead_code)]
    pub fn configured(&self) -> Vec<String> {
        self.state.lock().unwrap().configured.clone()
    }
}

fn router(state: &mut State, request: &Request) -> Answer {
    if request.target == "/payments" {
        return post(state, &request.body);
    }
    let sides = [0, 1].map(|side: usize| {
        let book = &state.books[side];
        let mut cents: u64 = book.values().sum();
        if state.fault == Fault::MisstateCents && side == 0 {
            cents += 1;
        }
        summary(book.len(), cents)
    });
    (200, format!(r#"{{"default":{},"fallback":{}}}"#, sides[0], sides[1]))
}

fn post(state: &mut State, body: &str) -> Answer {
    state.posts += 1;
    let fault = if state.posts == VICTIM { state.fault } else { Fault::None };
    let id = body.split('"').nth(3).unwrap().to_owned();
    let amount = body.rsplit(':').next().unwrap().trim_end_matches('}');
    let cents: u64 = amount.replace('.', "").parse().unwrap();
    let side = usize::from(state.posts.is_multiple_of(3));
    if !matches!(fault, Fault::Lose | Fault::Refuse) {
        let recorded = if fault == Fault::Alter { cents + 1 } else { cents };
        state.books[side].insert(id.clone(), recorded);
    }
    match fault {
        Fault::Double => {
            state.books[1 - side].insert(id, cents);
        }
        Fault::Refuse | Fault::RefuseAndRecord => return (503, String::new()),
        _ => {}
    }
    (202, String::new())
}

fn processor(state: &mut State, side: usize, request: &Request) -> (u16, String) {
    if request.target.starts_with("/admin/configurations/") {
        state.configured.push(format!("{side} {}", request.body));
        return (200, String::new());
    }
    let book = &state.books[side];
    let Some(query) = request.target.strip_prefix("/admin/payments?") else {
        return (200, summary(book.len(), book.values().sum()));
    };
    if state.fault == Fault::ListNothing {
        return (404, String::new());
    }
    let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name));
    let after = parameter("after=").unwrap_or_default();
    let limit: usize = parameter("limit=").unwrap().parse().unwrap();
    let line = |(id, cents): (&String, &u64)| {
        format!(
            r#"{{"correlationId":"{id}","amount":{}.{:02},"requestedAt":"2025-07-15T12:00:00.000Z","attempts":1}}"#,
            cents / 100,
            cents % 100
        )
    };
    // Fewer than asked for, as a server may: a short page is not the last.
    let page = book.iter().filter(|(id, _)| id.as_str() > after).take(limit.min(100)).map(line);
    (200, format!("[{}]", page.collect::<Vec<_>>().join(",")))
}

fn summary(count: usize, cents: u64) -> String {
    let (whole, part) = (cents / 100, cents % 100);
    format!(r#"{{"totalRequests":{count},"totalAmount":{whole}.{part:02}}}"#)
}

/// Serves on any free port, a thread per connection. Gives the URL.
fn serve(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || converse(&stream.unwrap(), &*answer));
        }
    });
    url
}

fn converse(stream: &TcpStream, answer: &impl Fn(&Request) -> Answer) -> Option<()> {
    stream.set_nodelay(true).unwrap();
    let mut input = BufReader::new(stream);
    loop {
        let request = read_request(&mut input)?;
        let (status, body) = answer(&request);
        let length = body.len();
        let head = format!("HTTP/1.1 {status} So\r\ncontent-length: {length}\r\n\r\n");
        let mut output = stream;
        output.write_all((head + &body).as_bytes()).ok()?;
    }
}

fn read_request(input: &mut impl BufRead) -> Option<Request> {
    let mut first = String::new();
    input.read_line(&mut first).ok()?;
    let target = first.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    Some(Request { target, body: String::from_utf8(body).unwrap() })
}
