//! The test bench of the payment router: runs the whole system on one machine, floods it with
//! payments, compares all books, and scores by the contest's rules.

pub mod books;
pub mod flood;
pub mod http;
pub mod score;
pub mod up;
