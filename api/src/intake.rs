//! Where connections come from: handed over by balancers, and accepted on TCP.

use std::cell::RefCell;
use std::io;
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use ledger::handover::{HandoverListener, HandoverReceiver};
use ledger::socket::Acceptor;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::http::Connections;

/// The pause after the operating system refused a connection, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The balancers that are connected.
#[derive(Default)]
pub struct Balancers {
    receivers: RefCell<Vec<Rc<HandoverReceiver>>>,
}

impl Balancers {
    /// Takes balancers and their connections, for ever.
    pub async fn accept(self: Rc<Self>, listener: HandoverListener, connections: Rc<Connections>) {
        loop {
            match listener.accept().await {
                Ok(receiver) => {
                    tracing::info!("a balancer is connected");
                    let receiver = Rc::new(receiver);
                    self.receivers.borrow_mut().push(Rc::clone(&receiver));
                    // A balancer that is gone already is noticed when it is read from.
                    let _ = receiver.tell(connections.standing());
                    spawn_local(Rc::clone(&self).receive(receiver, Rc::clone(&connections)));
                }
                Err(error) => {
                    tracing::warn!("a balancer is refused: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes the connections of one balancer to its end.
    async fn receive(self: Rc<Self>, receiver: Rc<HandoverReceiver>, connections: Rc<Connections>) {
        loop {
            match receiver.receive().await {
                Ok(Some(descriptor)) => connections.serve(descriptor.into()),
                Ok(None) => {
                    tracing::info!("a balancer is disconnected");
                    break;
                }
                Err(error) => {
                    tracing::warn!("a balancer is disconnected: {error}");
                    break;
                }
            }
        }
        self.receivers.borrow_mut().retain(|other| !Rc::ptr_eq(other, &receiver));
    }

    /// Tells all balancers how this instance stands, whenever that changes.
    pub async fn tell(self: Rc<Self>, connections: Rc<Connections>) {
        loop {
            connections.changed().await;
            let standing = connections.standing();
            for receiver in self.receivers.borrow().iter() {
                // A balancer that is gone is noticed when it is read from.
                let _ = receiver.tell(standing);
            }
        }
    }

    /// Takes the connections that balancers have handed over already, before the process ends.
    pub fn take_rest(&self, connections: &Rc<Connections>) {
        for receiver in self.receivers.borrow().iter() {
            while let Ok(Some(descriptor)) = receiver.try_receive() {
                connections.serve(descriptor.into());
            }
        }
    }
}

/// Takes connections on TCP, for ever.
pub async fn accept_tcp(acceptor: Acceptor, connections: Rc<Connections>) {
    loop {
        match accept_one(&acceptor).await {
            Ok(stream) => connections.serve(stream),
            Err(error) => {
                tracing::warn!("a connection is refused: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept_one(acceptor: &Acceptor) -> io::Result<TcpStream> {
    let stream = TcpStream::from(acceptor.accept().await?);
    stream.set_nodelay(true)?;
    Ok(stream)
}
