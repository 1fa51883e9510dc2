//! The messages of the hand-over, over the sockets that carry them: what a balancer says, with any
//! number of descriptors, and what an API says.

#![no_main]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use fuzz::bytes::Bytes;
use ledger::handover::{HandoverListener, HandoverReceiver, HandoverSender, Standing};
use libfuzzer_sys::fuzz_target;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use tokio::runtime::{Builder, Runtime};

/// Descriptors that come with one message, at most.
const DESCRIPTORS_MAX: usize = 3;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Bytes(bytes);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("api-1.sock");
    if input.u8() % 2 == 0 {
        to_api(&runtime, &path, input);
    } else {
        to_balancer(&runtime, &path, input);
    }
});

/// A message with a descriptor is a connection, one that lost its descriptor costs that connection
/// alone, anything else ends the line; and no descriptor stays open.
fn to_api(runtime: &Runtime, path: &Path, mut input: Bytes<'_>) {
    let _context = runtime.enter();
    let listener = HandoverListener::bind(path).expect("a free path");
    let balancer = seqpacket();
    rustix::net::connect(&balancer, &SocketAddrUnix::new(path).expect("a short path"))
        .expect("a listener");
    let receiver = runtime.block_on(listener.accept()).expect("a balancer");
    let open_before = open_count();
    let spare = File::open("/dev/null").expect("the null device");
    for _ in 0..input.u8() % 8 {
        let (descriptors_count, length) =
            (usize::from(input.u8()) % (DESCRIPTORS_MAX + 1), input.u8());
        let message = if length == 0 { b"CON1" } else { input.take(usize::from(length)) };
        if message.is_empty() {
            break;
        }
        send(&balancer, message, &spare, descriptors_count);
        // Whoever waits for a connection looks past messages that lost theirs, so another follows.
        let is_lost = message == b"CON1" && descriptors_count == 0;
        if is_lost {
            send(&balancer, b"CON1", &spare, 1);
        }
        let received = runtime.block_on(receiver.receive());
        if message == b"CON1" {
            let connection: OwnedFd = received.expect("a connection").expect("a balancer");
            drop(connection);
        } else {
            let error = received.expect_err("no message of this version");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        assert_eq!(open_count(), open_before + 1, "a descriptor stays open");
    }
    drop(balancer);
    assert!(ended(runtime, &receiver));
}

fn ended(runtime: &Runtime, receiver: &HandoverReceiver) -> bool {
    matches!(runtime.block_on(receiver.receive()), Ok(None))
}

/// A standing is heard as it was told, and anything else is none.
fn to_balancer(runtime: &Runtime, path: &Path, mut input: Bytes<'_>) {
    let _context = runtime.enter();
    let listening = seqpacket();
    rustix::net::bind(&listening, &SocketAddrUnix::new(path).expect("a short path"))
        .expect("a free path");
    rustix::net::listen(&listening, 1).expect("a socket");
    let sender = HandoverSender::connect(path).expect("a listener");
    let api = rustix::net::accept(&listening).expect("a balancer");
    for _ in 0..input.u8() % 8 {
        let (is_standing, count, limit) = (input.u8() % 2 == 0, input.u32(), input.u32());
        let standing = [&b"STA1"[..], &count.to_le_bytes(), &limit.to_le_bytes()].concat();
        let length = usize::from(input.u8());
        let message = if is_standing { &standing[..] } else { input.take(length) };
        if message.is_empty() {
            break;
        }
        rustix::net::send(&api, message, SendFlags::NOSIGNAL).expect("a balancer that reads");
        let heard = runtime.block_on(sender.standing());
        if message.len() == standing.len() && message.starts_with(b"STA1") {
            let number =
                |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().expect("four bytes"));
            let expected = Standing {
                draining: number(8) % 2 == 1,
                connections_count: number(4),
                connections_max: number(8) / 2,
            };
            assert_eq!(heard.expect("a standing"), Some(expected));
        } else {
            let error = heard.expect_err("no standing of this version");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
    drop(api);
    assert!(matches!(runtime.block_on(sender.standing()), Ok(None)));
}

fn seqpacket() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .expect("a socket")
}

fn send(socket: &OwnedFd, message: &[u8], spare: &File, descriptors_count: usize) {
    let descriptors = [spare.as_fd(); DESCRIPTORS_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if descriptors_count > 0 {
        let sent = SendAncillaryMessage::ScmRights(&descriptors[..descriptors_count]);
        assert!(control.push(sent));
    }
    let pieces = [io::IoSlice::new(message)];
    rustix::net::sendmsg(socket, &pieces, &mut control, SendFlags::NOSIGNAL).expect("a peer");
}

/// Descriptors of this process.
fn open_count() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}
