//! The monitor: gathers what all daemons of a router tell of themselves, for Prometheus and for
//! people.
//!
//! | part | what it is for |
//! |---|---|
//! | [`text`] | the text format of metrics, read and written |
//! | [`gather`] | asks every daemon over its socket |
//! | [`merge`] | one text of all answers |
//! | [`shared`] | one gathering for all who ask at about the same time |
//! | [`serve`] | `monitor serve`: `GET /metrics` and the page |
//! | [`page`] | the live page, and what it asks for |
//! | [`status`] | `monitor status`: how the router is, on one screen or as JSON |
//!
//! It owns nothing, and keeps nothing for longer than a moment: whatever it says was read from the
//! daemons just now. A daemon that does not answer is told as down, and stops nobody else from
//! being told.

pub mod gather;
pub mod merge;
pub mod page;
pub mod serve;
pub mod settings;
pub mod shared;
pub mod status;
pub mod text;
