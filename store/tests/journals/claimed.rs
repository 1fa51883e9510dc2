//! What the instances have had decided before they sent it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ledger::journal::Position;
use store::books::Books;

/// Has everything decided upon that both instances have accepted.
pub fn claim_all(books: &mut Books) {
    let all = Position { segment: u32::MAX, index: 0 };
    for instance in [1, 2] {
        let mut through = Position::START;
        loop {
            let decided = books.claim(instance, all).unwrap().unwrap().through;
            if decided == through {
                break;
            }
            through = decided;
        }
    }
}
