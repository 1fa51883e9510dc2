//! The text of an amount.

#![no_main]

use fuzz::{memory, slow};
use ledger::Cents;
use ledger::money::AmountError;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let amount = memory::within(8 * text.len() + 4096, || Cents::parse_amount(text));
    assert_eq!(amount.ok().map(Cents::get), slow::amount_cents(text), "{text}");
    // A number is whatever JSON takes for one, and nothing else.
    let is_number = serde_json::from_str::<serde_json::Number>(text).is_ok();
    let bare = !text.contains(|c: char| c.is_ascii_whitespace());
    assert_eq!(amount != Err(AmountError::NotANumber), is_number && bare, "{text}");
    if let Ok(amount) = amount {
        assert!(amount.is_payment_amount());
        assert_eq!(Cents::parse_amount(&amount.to_string()), Ok(amount));
    }
});
