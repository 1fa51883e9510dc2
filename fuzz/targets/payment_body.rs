//! The body of `POST /payments`.

#![no_main]

use api::http::parse_payment;
use fuzz::{memory, slow};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    match memory::within(8 * body.len() + 16_384, || parse_payment(body)) {
        Ok((id, amount)) => {
            assert!(amount.is_payment_amount());
            // Another reader of JSON reads the same payment.
            if let Some(value) = slow::json(body) {
                let other_id = value["correlationId"].as_str().expect("an id is a text");
                assert_eq!(other_id.to_ascii_lowercase(), id.to_string());
                let other_amount = value["amount"].as_number().expect("an amount is a number");
                assert_eq!(slow::amount_cents(other_amount.as_str()), Some(amount.get()));
            }
            let again = format!(r#"{{"correlationId":"{id}","amount":{amount}}}"#);
            assert_eq!(parse_payment(again.as_bytes()), Ok((id, amount)));
        }
        Err(sentence) => {
            assert!(!sentence.is_empty() && sentence.len() < 1024, "{sentence}");
            assert!(!sentence.contains(char::is_control), "{sentence:?}");
        }
    }
});
