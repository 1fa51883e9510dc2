use std::io::{Read, Write};
use std::net::{TcpListener as Listener, TcpStream as Stream};
use std::sync::Mutex;

use ledger::clock::Monotonic;

use super::*;

/// After this long a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";

/// A processor that answers everything, and remembers what it was asked.
fn processor() -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let memory = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, memory) = (stream.unwrap(), Arc::clone(&memory));
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let mut buffer = [0; 100];
                loop {
                    let count = stream.read(&mut buffer).unwrap_or(0);
                    if count == 0 {
                        return;
                    }
                    bytes.extend_from_slice(&buffer[..count]);
                    if let Some(whole) = message::request(&bytes).unwrap() {
                        memory.lock().unwrap().push(bytes.drain(..whole.bytes).collect());
                        stream.write_all(ANSWER).unwrap();
                    }
                }
            });
        }
    });
    (address, heard)
}

fn call(number: u32) -> Vec<u8> {
    format!("POST /payments HTTP/1.1\r\ncontent-length: 1\r\n\r\n{number}").into_bytes()
}

fn proxy(target: SocketAddr, misbehaviour: Misbehaviour) -> Proxy {
    let free = crate::up::ports::free::<1>().unwrap();
    let proxy = Proxy::start(free.ports[0], target).unwrap();
    std::mem::forget(free);
    proxy.behave(Behaviour { misbehaviour: Some(misbehaviour), every: 1 });
    proxy
}

fn connect(proxy: &Proxy) -> Stream {
    let stream = Stream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a call, and gives all that comes back until the connection ends.
fn ask(proxy: &Proxy) -> io::Result<Vec<u8>> {
    let mut stream = connect(proxy);
    stream.write_all(&call(1))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map(|_| answer)
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let clock = Monotonic::start();
    while !is_so() {
        assert!(clock.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn calls_over_one_connection_are_forwarded_in_order_whatever_pieces_they_come_in() {
    let (target, heard) = processor();
    let proxy = proxy(target, Misbehaviour::ClosesUnanswered);
    proxy.behave(Behaviour::default());
    let mut stream = connect(&proxy);
    for number in 1..4 {
        for piece in call(number).chunks(7) {
            stream.write_all(piece).unwrap();
        }
        let mut answer = vec![0; ANSWER.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, ANSWER);
    }
    assert_eq!(*heard.lock().unwrap(), [call(1), call(2), call(3)]);
    assert_eq!((proxy.calls_count(), proxy.mistreated_count()), (3, 0));
}

#[test]
fn a_late_answer_is_recorded_before_it_is_held() {
    let (target, heard) = processor();
    let proxy = proxy(target, Misbehaviour::AnswersLate { ms: 300 });
    let mut stream = connect(&proxy);
    let clock = Monotonic::start();
    stream.write_all(&call(1)).unwrap();
    wait_for("the call", || heard.lock().unwrap().len() == 1);
    let mut answer = vec![0; ANSWER.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, ANSWER);
    assert!(clock.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_reset_comes_in_the_middle_of_the_answer_to_a_call_that_is_recorded() {
    let (target, heard) = processor();
    let proxy = proxy(target, Misbehaviour::ResetsMidAnswer);
    let error = ask(&proxy).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(heard.lock().unwrap().len(), 1);
}

#[test]
fn garbage_is_no_answer_and_every_other_call_for_it_is_recorded() {
    let (target, heard) = processor();
    let proxy = proxy(target, Misbehaviour::AnswersGarbage);
    for _ in 0..4 {
        let answer = ask(&proxy).unwrap();
        assert!(message::response(&answer).is_err(), "{answer:?}");
    }
    assert_eq!(heard.lock().unwrap().len(), 2);
}

#[test]
fn without_an_answer_a_call_is_recorded_or_not_as_told() {
    for (misbehaviour, recorded) in
        [(Misbehaviour::ClosesUnanswered, 0), (Misbehaviour::RecordsAndDrops, 1)]
    {
        let (target, heard) = processor();
        let proxy = proxy(target, misbehaviour);
        // A reset is as good as a close: there is no answer.
        assert!(ask(&proxy).unwrap_or_default().is_empty());
        assert_eq!(heard.lock().unwrap().len(), recorded, "{misbehaviour:?}");
        assert_eq!(proxy.mistreated_count(), 1);
    }
}

#[test]
fn a_swallowed_call_is_recorded_long_after_its_caller_has_left() {
    let (target, heard) = processor();
    let proxy = proxy(target, Misbehaviour::Swallows { ms: 300 });
    let mut stream = connect(&proxy);
    stream.write_all(&call(1)).unwrap();
    wait_for("the call to be held", || proxy.held_count() == 1);
    drop(stream);
    proxy.behave(Behaviour::default());
    assert!(heard.lock().unwrap().is_empty());
    wait_for("the call to be let go", || proxy.held_count() == 0);
    assert_eq!(*heard.lock().unwrap(), [call(1)]);
}

#[test]
fn refused_connections_end_those_that_were_open_and_are_taken_again_afterwards() {
    let (target, _heard) = processor();
    let proxy = proxy(target, Misbehaviour::ClosesUnanswered);
    proxy.behave(Behaviour::default());
    let mut open = connect(&proxy);
    open.write_all(&call(1)).unwrap();
    open.read_exact(&mut vec![0; ANSWER.len()]).unwrap();
    let refusing = Some(Misbehaviour::RefusesConnections);
    proxy.behave(Behaviour { misbehaviour: refusing, every: 1 });
    assert_eq!(open.read(&mut [0]).unwrap_or(0), 0);
    let connect = || Stream::connect((Ipv4Addr::LOCALHOST, proxy.port()));
    wait_for("a refusal", || {
        connect().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    });
    proxy.behave(Behaviour::default());
    wait_for("a connection", || connect().is_ok());
}

#[test]
fn a_silent_processor_is_connected_to_and_says_and_records_nothing() {
    let (target, heard) = processor();
    let proxy = proxy(target, Misbehaviour::GoesSilent);
    let mut stream = connect(&proxy);
    stream.write_all(&call(1)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(heard.lock().unwrap().is_empty());
}

#[test]
fn every_third_call_is_mistreated_where_that_is_asked_for() {
    let (target, heard) = processor();
    let proxy = proxy(target, Misbehaviour::ClosesUnanswered);
    let misbehaviour = Some(Misbehaviour::ClosesUnanswered);
    proxy.behave(Behaviour { misbehaviour, every: 3 });
    let answered = (0..6).map(|_| {
        let mut stream = connect(&proxy);
        stream.write_all(&call(1)).unwrap();
        let mut answer = vec![0; ANSWER.len()];
        stream.read_exact(&mut answer).is_ok()
    });
    assert_eq!(answered.collect::<Vec<_>>(), [false, true, true, false, true, true]);
    assert_eq!(heard.lock().unwrap().len(), 4);
}
