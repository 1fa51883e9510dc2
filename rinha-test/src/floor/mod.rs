//! The floor: a bare epoll server that answers every payment with the same bytes, and anything else with
//! other ones, so that a latency can be read as a ratio to what this machine and this load generator can see
//! at all.
//!
//! One thread, one readiness queue, one read and one write for each batch of requests that arrived
//! together. It looks for the end of each head, its path and its `content-length`, and at nothing else.

mod conversation;

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use ledger::clock::Monotonic;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use self::conversation::Conversation;

/// Events that are taken at once.
const EVENTS_MAX: usize = 512;

/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;

/// The event of the listener; connections are known by their descriptor.
const LISTENER: u64 = u64::MAX;

/// The settings of `rinha-test floor`.
#[derive(clap::Args, Clone, Debug)]
pub struct FloorSettings {
    /// Where it listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9998")]
    pub listen: SocketAddr,
    /// Work for so many microseconds on each request, as a slower server would
    #[arg(long, value_name = "COUNT", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub busy_us: u64,
}

/// A connection, and what has arrived of its next request.
struct Connection {
    stream: TcpStream,
    conversation: Conversation,
}

/// Serves until the process is ended. Says on standard output where it listens, once it does.
///
/// # Errors
/// The address cannot be listened on, or the readiness queue cannot be used.
pub fn run(settings: &FloorSettings) -> io::Result<()> {
    let listener = TcpListener::bind(settings.listen)?;
    println!("listening on {}", listener.local_addr()?);
    serve(&listener, Duration::from_micros(settings.busy_us))
}

fn serve(listener: &TcpListener, busy: Duration) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let queue = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&queue, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        events.clear();
        match epoll::wait(&queue, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let key = event.data.u64();
            if key == LISTENER {
                while let Some(stream) = accept(listener)? {
                    let key = u64::from(stream.as_raw_fd().unsigned_abs());
                    epoll::add(&queue, &stream, EventData::new_u64(key), EventFlags::IN)?;
                    let conversation = Conversation::default();
                    connections.insert(key, Connection { stream, conversation });
                }
            } else if let Some(connection) = connections.get_mut(&key)
                && !connection.converse(&mut buffer, busy)
            {
                connections.remove(&key);
            }
        }
    }
}

/// The next connection that waits; none if there is none, or if it was given up meanwhile.
fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            Ok(Some(stream))
        }
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Connection {
    /// Reads once and answers what is complete. Gives whether the connection goes on.
    fn converse(&mut self, buffer: &mut [u8], busy: Duration) -> bool {
        match self.stream.read(buffer) {
            Ok(0) => false,
            Ok(count) => {
                let Some(answers) = self.conversation.take(&buffer[..count]) else {
                    return false;
                };
                if !answers.is_empty() {
                    work(busy);
                }
                // An answer is far smaller than a socket's buffer: who does not read it is left.
                answers.is_empty() || self.stream.write_all(&answers).is_ok()
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}

/// Keeps this thread busy for so long.
fn work(busy: Duration) {
    if !busy.is_zero() {
        let clock = Monotonic::start();
        while clock.elapsed() < busy {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn requests_are_answered_over_several_connections_in_pieces_and_together() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(&listener, Duration::from_micros(1)));
        let mut streams = [0; 3].map(|_| TcpStream::connect(address).unwrap());
        let answer = Conversation::default().take(b"GET /payments HTTP/1.1\r\n\r\n").unwrap();
        for stream in &mut streams {
            let mut read = vec![0; answer.len()];
            stream.write_all(b"POST /payments HTTP/1.1\r\nContent-Length: 4\r\n\r\nab").unwrap();
            stream.write_all(b"cd").unwrap();
            stream.read_exact(&mut read).unwrap();
            assert_eq!(read, answer);
            let twice = [&read[..], &read].concat();
            let mut read = vec![0; twice.len()];
            stream
                .write_all(b"GET /payments HTTP/1.1\r\n\r\nGET /payments HTTP/1.1\r\n\r\n")
                .unwrap();
            stream.read_exact(&mut read).unwrap();
            assert_eq!(read, twice);
        }
        let [first, second, _] = &mut streams;
        first.write_all(b"no request\r\n\r\n").unwrap();
        assert_eq!(first.read(&mut [0; 8]).unwrap(), 0);
        second.write_all(b"GET /payments HTTP/1.1\r\n\r\n").unwrap();
        let mut read = vec![0; answer.len()];
        second.read_exact(&mut read).unwrap();
    }
}
