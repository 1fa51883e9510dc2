//! Asking a daemon whether it does its work, for those who watch it from outside: `lb check`,
//! `api check`, `store check`. A daemon that runs but does not answer is not well.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::protocol::{FrameBuffer, ProtocolError, Request, Response};
use crate::time::RangeMs;

/// How long an answer may take. Whoever asks has a longer patience.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: usize = 4096;

/// Why a daemon is not well.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Nobody answers there.
    #[error("{address}: {cause}")]
    Http {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        cause: io::Error,
    },
    /// It answers that it cannot work.
    #[error("{address} answers {answer}")]
    Unwell {
        /// The address.
        address: SocketAddr,
        /// Status line and body.
        answer: String,
    },
    /// Nobody answers on the socket.
    #[error("{path}: {cause}", path = .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the operating system says.
        cause: io::Error,
    },
    /// What it answers is not understood.
    #[error("{path} answers what is no summary", path = .0.display())]
    Strange(PathBuf),
}

/// Asks for `/health`, as a client would.
///
/// # Errors
/// There is no answer, or it is not `200`.
pub fn http(listen: SocketAddr) -> Result<(), CheckError> {
    let address = reachable(listen);
    let answer = ask_http(address).map_err(|cause| CheckError::Http { address, cause })?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    let mut lines = answer.lines();
    let status = lines.next().unwrap_or_default();
    let body = lines.next_back().unwrap_or_default();
    Err(CheckError::Unwell { address, answer: format!("{status}: {body}") })
}

fn ask_http(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET /health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX as u64).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Where an address that listens on all interfaces is reached from here.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Asks the store for a summary, as an API would.
///
/// # Errors
/// There is no answer, or another one.
pub fn store(socket: &Path) -> Result<(), CheckError> {
    let failed = |cause| CheckError::Socket { path: socket.to_owned(), cause };
    match ask_store(socket).map_err(failed)? {
        Ok(Some(Response::Summary(_))) => Ok(()),
        _ => Err(CheckError::Strange(socket.to_owned())),
    }
}

fn ask_store(socket: &Path) -> io::Result<Result<Option<Response>, ProtocolError>> {
    const NUMBER: u32 = 1;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut request = Vec::new();
    Request::Summarize(RangeMs::ALL).encode(NUMBER, &mut request);
    stream.write_all(&request)?;
    let mut frames = FrameBuffer::default();
    let mut buffer = [0; ANSWER_BYTES_MAX];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => frames.extend(&buffer[..count]),
        }
        match frames.next_response() {
            Ok(None) => {}
            // What it tells of its own accord is no answer.
            Ok(Some((number, _))) if number != NUMBER => {}
            Ok(Some((_, response))) => return Ok(Ok(Some(response))),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Says what a check found, as a process says it: exit code 0, or 1 and a sentence.
#[must_use]
pub fn exit(result: Result<(), CheckError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one connection with these bytes.
    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // All of it: closing over bytes that were not read would break the connection off, and the
            // answer with it.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut bytes = [0; 1024];
                let count = stream.read(&mut bytes).unwrap();
                assert!(count > 0, "the request ends too early");
                request.extend_from_slice(&bytes[..count]);
            }
            assert!(request.starts_with(b"GET /health HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn only_200_is_well_and_the_reason_is_told() {
        let well = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        http(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), well.port())).unwrap();
        let unwell = answering("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"error\":\"no\"}");
        let told = http(unwell).unwrap_err().to_string();
        assert!(
            told.ends_with(r#"answers HTTP/1.1 503 Service Unavailable: {"error":"no"}"#),
            "{told}"
        );
        assert!(http(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))).is_err());
    }

    #[test]
    fn a_store_that_is_not_there_or_hangs_up_is_not_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sock");
        assert!(store(&path).unwrap_err().to_string().starts_with(path.to_str().unwrap()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || drop(listener.accept().unwrap()));
        assert!(store(&path).is_err());
        server.join().unwrap();
    }

    #[test]
    fn a_store_that_answers_is_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut frames = FrameBuffer::default();
            let mut buffer = [0; 256];
            let count = stream.read(&mut buffer).unwrap();
            frames.extend(&buffer[..count]);
            let (number, request) = frames.next_request().unwrap().unwrap();
            assert_eq!(request, Request::Summarize(RangeMs::ALL));
            let mut answer = Vec::new();
            Response::Summary(Default::default()).encode(number, &mut answer);
            stream.write_all(&answer).unwrap();
        });
        store(&path).unwrap();
        server.join().unwrap();
    }
}
