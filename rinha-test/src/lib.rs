//! The test bench of the payment router: runs the whole system on one machine, puts it under
//! load, disturbs it, audits it, and reports what it found. `contest.js` and `scoring.js` are the
//! contest's test for its own client, k6, as an independent check.

pub mod audit;
pub mod books;
pub mod chaos;
pub mod faults;
pub mod floor;
pub mod http;
pub mod load;
pub mod machine;
pub mod manual;
pub mod report;
pub mod route_lab;
pub mod rules;
pub mod scenario;
pub mod score;
pub mod simulate;
pub mod stress;
pub mod up;

pub(crate) mod progress;
