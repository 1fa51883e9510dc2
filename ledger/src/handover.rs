//! Handing accepted connections from the balancer to an API instance: one message with one file
//! descriptor per connection, over a Unix socket that keeps messages apart (`SOCK_SEQPACKET`).
//!
//! The balancer is the client. The API answers with its [`Standing`] whenever that changes, so that
//! the balancer knows who takes connections. Descriptors arrive with close-on-exec set, and the
//! balancer's copy is closed once it was sent, so a connection ends when the API closes it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::socket::{
    Acceptor, BoundPath, bind_privately, check_peer_of_socket, socket_address, watch_for_input,
};

/// What a message with a connection says. A peer of another version says something else.
const CONNECTION: [u8; 4] = *b"CON1";
/// How a message with a standing begins.
const STANDING: [u8; 4] = *b"STA1";
/// Bytes of a message with a standing.
const STANDING_BYTES: usize = 12;

/// Connections that wait for an API to accept the balancer's socket.
const LISTEN_BACKLOG: i32 = 16;

/// Whether an API instance takes connections, and how many it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// It is about to end, and takes no more connections.
    pub draining: bool,
    /// Connections that it serves.
    pub connections_count: u32,
    /// Connections that it would serve at most, below 2^31.
    pub connections_max: u32,
}

impl Standing {
    /// Whether one more connection would be served.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.draining && self.connections_count < self.connections_max
    }

    fn encode(self) -> [u8; STANDING_BYTES] {
        let mut bytes = [0; STANDING_BYTES];
        bytes[..4].copy_from_slice(&STANDING);
        bytes[4..8].copy_from_slice(&self.connections_count.to_le_bytes());
        let limit = self.connections_max << 1 | u32::from(self.draining);
        bytes[8..].copy_from_slice(&limit.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; STANDING_BYTES] = bytes.try_into().ok()?;
        let (words, _) = bytes.as_chunks::<4>();
        let limit = u32::from_le_bytes(words[2]);
        (words[0] == STANDING).then(|| Self {
            draining: limit & 1 == 1,
            connections_count: u32::from_le_bytes(words[1]),
            connections_max: limit >> 1,
        })
    }
}

/// Why a connection could not be handed over. The caller still has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandoverError {
    /// The API reads too slowly at the moment.
    Full,
    /// The API is gone.
    Gone,
}

// The sockets below keep messages apart, which tokio's types do not know of. They are watched for messages
// alone: one that is watched for room as well would wake the balancer whenever an API takes a connection.

/// The balancer's end.
pub struct HandoverSender {
    socket: AsyncFd<OwnedFd>,
}

/// The API's socket.
pub struct HandoverListener {
    acceptor: Acceptor,
    _path: BoundPath,
}

/// The API's end of one balancer's socket.
pub struct HandoverReceiver {
    socket: AsyncFd<OwnedFd>,
}

impl HandoverSender {
    /// Connects to an API instance.
    ///
    /// # Errors
    /// Nobody listens at the path.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = seqpacket()?;
        rustix::net::connect(&socket, &socket_address(path)?)?;
        check_peer_of_socket(socket.as_fd())?;
        Ok(Self { socket: watch_for_input(socket)? })
    }

    /// Hands a connection over without waiting.
    ///
    /// # Errors
    /// The API cannot take it now, or is gone. The connection is unchanged.
    pub fn send(&self, connection: BorrowedFd<'_>) -> Result<(), HandoverError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [connection];
        let fits = control.push(SendAncillaryMessage::ScmRights(&descriptors));
        debug_assert!(fits, "the space is made for one descriptor");
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            let message = [IoSlice::new(&CONNECTION)];
            return match sendmsg(&self.socket, &message, &mut control, flags) {
                Ok(_) => Ok(()),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::TOOMANYREFS | Errno::NOMEM) => {
                    Err(HandoverError::Full)
                }
                Err(_) => Err(HandoverError::Gone),
            };
        }
    }

    /// Waits for the API to tell how it stands; `None` when it is gone.
    ///
    /// # Errors
    /// It says something that this version does not know.
    pub async fn standing(&self) -> io::Result<Option<Standing>> {
        let mut bytes = [0; STANDING_BYTES + 1];
        let received = self
            .socket
            .async_io(Interest::READABLE, |socket| {
                rustix::net::recv(socket, &mut bytes[..], RecvFlags::DONTWAIT)
                    .map(|(count, _)| count)
                    .map_err(io::Error::from)
            })
            .await;
        match received {
            Ok(0) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
            Ok(count) => Standing::decode(&bytes[..count]).map(Some).ok_or_else(unknown_message),
        }
    }
}

impl HandoverListener {
    /// Listens at the path. A socket that an ended process left there is replaced.
    ///
    /// # Errors
    /// Another process listens there, the path is too long for a socket, or cannot be bound.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let socket = seqpacket()?;
        let bound = bind_privately(&socket, path)?;
        rustix::net::listen(&socket, LISTEN_BACKLOG)?;
        Ok(Self { acceptor: Acceptor::of(socket)?, _path: bound })
    }

    /// Waits for a balancer of the same user.
    ///
    /// # Errors
    /// The operating system refuses, for example for want of file descriptors.
    pub async fn accept(&self) -> io::Result<HandoverReceiver> {
        let socket = self.acceptor.accept().await?;
        check_peer_of_socket(socket.as_fd())?;
        Ok(HandoverReceiver { socket: watch_for_input(socket)? })
    }
}

impl HandoverReceiver {
    /// Waits for the next connection; `None` when the balancer is gone.
    ///
    /// # Errors
    /// The balancer says something that this version does not know.
    pub async fn receive(&self) -> io::Result<Option<OwnedFd>> {
        self.socket.async_io(Interest::READABLE, receive).await
    }

    /// The next connection that is there already, without waiting.
    ///
    /// # Errors
    /// As [`HandoverReceiver::receive`]; [`io::ErrorKind::WouldBlock`] where there is none.
    pub fn try_receive(&self) -> io::Result<Option<OwnedFd>> {
        self.socket.try_io(Interest::READABLE, receive)
    }

    /// Tells the balancer how this instance stands. A balancer that does not read is not told.
    ///
    /// # Errors
    /// The balancer is gone.
    pub fn tell(&self, standing: Standing) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::send(&self.socket, &standing.encode(), flags) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Receives the next connection. One whose descriptor the operating system did not deliver, because
/// this process has as many as it may, is lost; those after it are not.
fn receive(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    loop {
        match receive_message(socket)? {
            Message::Connection(connection) => return Ok(Some(connection)),
            Message::Lost => tracing::warn!(
                "a connection that was handed over is lost: there are too many open descriptors"
            ),
            Message::End => return Ok(None),
        }
    }
}

/// What was received.
enum Message {
    Connection(OwnedFd),
    Lost,
    End,
}

fn receive_message(socket: &OwnedFd) -> io::Result<Message> {
    let mut bytes = [0; CONNECTION.len() + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
        Err(Errno::CONNRESET) => return Ok(Message::End),
        received => received?,
    };
    let mut connection = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            connection = descriptors.last();
        }
    }
    match (received.bytes, connection) {
        (0, None) => Ok(Message::End),
        (count, _) if bytes[..count] != CONNECTION => Err(unknown_message()),
        (_, Some(connection)) => Ok(Message::Connection(connection)),
        (_, None) => Ok(Message::Lost),
    }
}

fn unknown_message() -> io::Error {
    let what = "the other end of the hand-over socket speaks another version";
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    use super::{
        AsFd, HandoverError, HandoverListener, HandoverReceiver, HandoverSender, Path, Standing,
    };

    async fn pair(folder: &Path) -> (HandoverListener, HandoverSender, HandoverReceiver) {
        let path = folder.join("api-1.sock");
        let listener = HandoverListener::bind(&path).unwrap();
        let sender = HandoverSender::connect(&path).unwrap();
        let receiver = listener.accept().await.unwrap();
        (listener, sender, receiver)
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn a_connection_handed_over_is_the_same_connection() {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let (_listener, sender, receiver) = pair(folder.path()).await;
            let (mut client, server) = UnixStream::pair().unwrap();
            sender.send(server.as_fd()).unwrap();
            drop(server);
            let mut served = UnixStream::from(receiver.receive().await.unwrap().unwrap());
            client.write_all(b"hello").unwrap();
            let mut bytes = [0; 5];
            served.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"hello");
            let flags = rustix::io::fcntl_getfd(&served).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            // The balancer's copy is closed, so the client sees the end.
            drop(served);
            assert_eq!(client.read(&mut bytes).unwrap(), 0);
        });
    }

    #[test]
    fn a_message_without_its_descriptor_loses_that_connection_and_no_other() {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let (_listener, sender, receiver) = pair(folder.path()).await;
            let (mut client, server) = UnixStream::pair().unwrap();
            let flags = rustix::net::SendFlags::NOSIGNAL;
            rustix::net::send(&sender.socket, &super::CONNECTION, flags).unwrap();
            sender.send(server.as_fd()).unwrap();
            let mut served = UnixStream::from(receiver.receive().await.unwrap().unwrap());
            served.write_all(b"hello").unwrap();
            client.read_exact(&mut [0; 5]).unwrap();
            rustix::net::send(&sender.socket, b"CON9", flags).unwrap();
            let error = receiver.receive().await.unwrap_err();
            assert!(error.to_string().contains("another version"), "{error}");
        });
    }

    #[test]
    fn an_api_that_does_not_read_is_full_and_one_that_ended_is_gone() {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let (listener, sender, receiver) = pair(folder.path()).await;
            let (_client, server) = UnixStream::pair().unwrap();
            let sent = (0..10_000).take_while(|_| sender.send(server.as_fd()).is_ok()).count();
            assert!((1..10_000).contains(&sent), "{sent}");
            assert_eq!(sender.send(server.as_fd()), Err(HandoverError::Full));
            receiver.receive().await.unwrap().unwrap();
            drop((receiver, listener));
            assert_eq!(sender.send(server.as_fd()), Err(HandoverError::Gone));
            assert_eq!(sender.standing().await.unwrap(), None);
        });
    }

    #[test]
    fn a_standing_is_told_and_the_end_is_seen_on_both_sides() {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let (_listener, sender, receiver) = pair(folder.path()).await;
            let standing = Standing { draining: true, connections_count: 7, connections_max: 1000 };
            receiver.tell(standing).unwrap();
            assert_eq!(sender.standing().await.unwrap(), Some(standing));
            assert!(!standing.has_room());
            assert!(Standing { draining: false, ..standing }.has_room());
            drop(sender);
            assert!(receiver.receive().await.unwrap().is_none());
        });
    }

    #[test]
    fn a_stale_socket_is_replaced_and_another_file_is_not() {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("api-1.sock");
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            drop(HandoverListener::bind(&path).unwrap());
            assert!(!path.exists());
            std::fs::write(&path, b"not a socket").unwrap();
            let error = HandoverListener::bind(&path).map(drop).unwrap_err();
            assert!(error.to_string().contains("is not a socket"), "{error}");
        });
    }

    #[test]
    fn a_socket_that_is_in_use_is_not_taken_over() {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("api-1.sock");
            let _listener = HandoverListener::bind(&path).unwrap();
            let error = HandoverListener::bind(&path).map(drop).unwrap_err();
            assert!(error.to_string().contains("another process"), "{error}");
            HandoverSender::connect(&path).unwrap();
        });
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_named() {
        let path = PathBuf::from("/tmp").join("x".repeat(120));
        let error = HandoverSender::connect(&path).map(drop).unwrap_err();
        assert!(error.to_string().contains("too long for a Unix socket"), "{error}");
    }
}
