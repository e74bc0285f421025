//! A TCP proxy before the server that cuts connections where a test wants it: before a
//! statement reaches the server, or after the server has answered it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Where the next connection that sends `statement` is cut, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The server never gets it.
    Before(&'static str),
    /// The server has answered it, and the answer is lost.
    AfterAnswer(&'static str),
}

#[derive(Default)]
struct State {
    cut: Option<Cut>,
    is_down: bool,
    is_over: bool,
    sockets: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

pub(super) struct Proxy {
    port: u16,
    state: Arc<Mutex<State>>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    pub(super) fn before(server: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let (server, shared) = (server.to_owned(), Arc::clone(&state));
        let accepting = std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let mut state = shared.lock().unwrap();
                if state.is_over {
                    break;
                }
                if !state.is_down {
                    connect(client, &server, &mut state, &shared);
                }
            }
        });
        Self { port, state, accepting: Some(accepting) }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn cut(&self, cut: Cut) {
        self.state.lock().unwrap().cut = Some(cut);
    }

    pub(super) fn was_cut(&self) -> bool {
        self.state.lock().unwrap().cut.is_none()
    }

    /// Cuts all connections, and closes every new one until [`Proxy::up`].
    pub(super) fn down(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_down = true;
        state.sockets.drain(..).for_each(|socket| _ = socket.shutdown(Shutdown::Both));
    }

    pub(super) fn up(&self) {
        self.state.lock().unwrap().is_down = false;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.down();
        self.state.lock().unwrap().is_over = true;
        // Wakes the thread that accepts.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        self.accepting.take().map(JoinHandle::join);
        let threads = std::mem::take(&mut self.state.lock().unwrap().threads);
        threads.into_iter().for_each(|thread| _ = thread.join());
    }
}

fn connect(client: TcpStream, server: &str, state: &mut State, shared: &Arc<Mutex<State>>) {
    let server = TcpStream::connect(server).unwrap();
    for socket in [&client, &server] {
        socket.set_nodelay(true).unwrap();
        state.sockets.push(socket.try_clone().unwrap());
    }
    let is_swallowing = Arc::new(Mutex::new(false));
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (plan, swallows) = (Arc::clone(shared), Arc::clone(&is_swallowing));
    state.threads.push(std::thread::spawn(move || {
        forward(&mut from_client, &mut to_server, |bytes| {
            let mut state = plan.lock().unwrap();
            let Some(Cut::Before(statement) | Cut::AfterAnswer(statement)) = state.cut else { return true };
            if !bytes.windows(statement.len()).any(|window| window == statement.as_bytes()) {
                return true;
            }
            let cut = state.cut.take();
            *swallows.lock().unwrap() = matches!(cut, Some(Cut::AfterAnswer(_)));
            matches!(cut, Some(Cut::AfterAnswer(_)))
        });
    }));
    let (mut from_server, mut to_client) = (server, client);
    state.threads.push(std::thread::spawn(move || {
        forward(&mut from_server, &mut to_client, |_| !*is_swallowing.lock().unwrap());
    }));
}

/// Copies until an end is closed or `goes_on` says no, then closes both.
fn forward(from: &mut TcpStream, to: &mut TcpStream, goes_on: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !goes_on(&buffer[..count]) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
