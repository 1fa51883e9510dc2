//! The test bench of the payment router: runs the whole system on one machine, floods it with
//! payments, and compares all books. `contest.js` and `scoring.js` are the contest's test.

pub mod books;
pub mod chaos;
pub mod faults;
pub mod flood;
pub mod floor;
pub mod http;
pub mod route_lab;
pub mod simulate;
pub mod up;
