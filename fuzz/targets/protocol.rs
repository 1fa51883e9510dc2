//! What APIs and the store say to each other, in both directions and in pieces of any size.

#![no_main]

use fuzz::bytes::Bytes;
use fuzz::memory;
use ledger::protocol::{FRAME_BYTES_MAX, FrameBuffer, ProtocolError, Request, Response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Bytes(bytes);
    let (direction, piece_bytes) = (bytes.u8(), usize::from(bytes.u8()) + 1);
    // The bytes themselves, what they say, and what that is written as, each in a vector that grows.
    memory::within(16 * bytes.0.len() + 4096, || {
        if direction.is_multiple_of(2) {
            hear(bytes.0, piece_bytes, FrameBuffer::next_request, |(number, request), out| {
                Request::encode(request, *number, out);
            });
        } else {
            hear(bytes.0, piece_bytes, FrameBuffer::next_response, |(number, response), out| {
                Response::encode(response, *number, out);
            });
        }
    });
});

/// Hears all frames, and demands that each says all that its bytes say.
fn hear<T>(
    bytes: &[u8],
    piece_bytes: usize,
    next: impl Fn(&mut FrameBuffer) -> Result<Option<T>, ProtocolError>,
    encode: impl Fn(&T, &mut Vec<u8>),
) {
    let mut buffer = FrameBuffer::default();
    let mut said_again = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        buffer.extend(piece);
        loop {
            match next(&mut buffer) {
                Ok(Some(said)) => encode(&said, &mut said_again),
                Ok(None) => break,
                Err(_) => return assert_heard(bytes, &said_again),
            }
        }
    }
    assert_heard(bytes, &said_again);
    // What is left is the beginning of a frame.
    assert!(bytes.len() - said_again.len() < FRAME_BYTES_MAX);
}

fn assert_heard(bytes: &[u8], said_again: &[u8]) {
    assert_eq!(bytes.get(..said_again.len()), Some(said_again), "a frame says more than was heard");
}
