//! A simulator of the payment processors that payments are settled with.
//!
//! One binary, started twice, plays both the default and the fallback processor. It answers as the
//! contest's own processors do, and in the same order, because the order decides what a payment
//! that timed out has become. Inside `POST /payments`:
//!
//! 1. the concurrency limit ([`limit`]): so many run, so many wait, any beyond that get `429`
//! 2. the payload is read ([`requests`]): a bad one is `400`
//! 3. the configured delay is slept
//! 4. the failure flag is looked at ([`controls`]): `500`, and nothing is recorded
//! 5. the payment is recorded ([`books`]), or refused with `422` where its id already is
//!
//! A caller that hangs up changes nothing: a request that was read runs to its end. So a payment
//! that timed out may be recorded later.
//!
//! # Where to find what
//! | module | what it does |
//! |---|---|
//! | [`settings`] | flags and environment variables |
//! | [`server`] | binds the addresses, starts the HTTP server, gives the real addresses |
//! | [`service`] | one request in, one answer out: the order of the steps above |
//! | [`routes`] | which question a request asks, and whether it may be asked |
//! | [`requests`] | what the bodies and queries say |
//! | [`answers`] | what the answers look like |
//! | [`limit`] | how many payments may run, and how many may wait |
//! | [`health`] | the fixed windows of the health check |
//! | [`controls`] | what the `/admin/configurations` paths change |
//! | [`books`] | what is recorded, by id |
//! | [`timeline`] | totals by time, for sums over a range |
//!
//! # What its HTTP server cannot do
//! `may_minihttp` gives every connection a coroutine, which makes a slept delay and a held call
//! trivial and keeps a payment at a few microseconds of processor time. It is a server for
//! well-behaved callers:
//!
//! - a request with more than 16 headers, or one that is no HTTP, closes the connection unanswered;
//! - a body needs a `Content-Length`: chunked ones are answered `411`, or with a close where the
//!   body came along with the head; `Expect: 100-continue` is not answered;
//! - `Connection: close` does not make it close: the caller has to;
//! - every answer has a `Content-Length`, a `204` too (zero);
//! - a connection that is closed before its request was read is closed: that request never came.
//!   The same goes for a caller that shuts down its sending side at once after the request;
//! - pipelined requests that are read together are answered together, after the last of them.
//!
//! A panic ends the connection that it is met on, and no other.

pub mod answers;
pub mod books;
pub mod controls;
pub mod health;
pub mod limit;
pub mod requests;
pub mod routes;
pub mod server;
pub mod service;
pub mod settings;
pub mod timeline;

pub use server::{Running, StartError, run};
pub use settings::Settings;
