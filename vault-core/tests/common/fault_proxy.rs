//! A relay that misbehaves on request, between a client and a real service on this machine.
//!
//! [`FaultProxy::tcp`] passes bytes and knows nothing of what they mean, so any protocol will do. [`FaultProxy::http`]
//! takes HTTP/1.1 requests one by one, so that answers can be altered and counted too. Changing the fault cuts all
//! connections, so that no kept one escapes it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

#[path = "fault_http.rs"]
mod http;

pub(crate) use http::HttpFault;

/// Nothing here lasts longer, whatever a test forgets.
const LIMIT: Duration = Duration::from_secs(120);

/// What is wrong.
#[derive(Clone, Default)]
pub(crate) enum Fault {
    /// Nothing: bytes pass.
    #[default]
    None,
    /// Connections are refused.
    Down,
    /// Each answer begins this much later.
    Slow(Duration),
    /// Connections are taken, and nothing is ever answered.
    Hang,
    /// The connection breaks after so many bytes of the answers.
    CutAfter(usize),
    /// The answer is noise, and then the connection ends.
    Garbage,
    /// A fault of HTTP, for [`FaultProxy::http`] only.
    Http(HttpFault),
}

#[derive(Default)]
struct Live {
    next: usize,
    open: Vec<(usize, TcpStream)>,
}

pub(super) struct Shared {
    pub(super) upstream: SocketAddr,
    fault: Mutex<Fault>,
    live: Mutex<Live>,
    most: AtomicUsize,
    connections: AtomicUsize,
    pub(super) requests: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn fault(&self) -> Fault {
        lock(&self.fault).clone()
    }

    pub(super) fn count(&self, request: String) {
        lock(&self.requests).push(request);
    }

    /// Keeps a connection where a change of fault can cut it.
    fn enter(&self, stream: &TcpStream) -> io::Result<usize> {
        let mut live = lock(&self.live);
        let id = live.next;
        live.next += 1;
        live.open.push((id, stream.try_clone()?));
        self.most.fetch_max(live.open.len(), Ordering::SeqCst);
        Ok(id)
    }

    fn leave(&self, id: usize) {
        lock(&self.live).open.retain(|(other, _)| *other != id);
    }

    fn cut(&self) {
        for (_, stream) in &lock(&self.live).open {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

type Serve = fn(&Shared, TcpStream) -> io::Result<()>;

/// The relay; it ends when it is dropped.
pub(crate) struct FaultProxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    serve: Serve,
    listener: Mutex<Option<thread::JoinHandle<()>>>,
}

impl FaultProxy {
    /// A relay of bytes.
    pub(crate) fn tcp(upstream: SocketAddr) -> Self {
        Self::new(upstream, relay)
    }

    /// A relay of HTTP/1.1 requests and answers.
    pub(crate) fn http(upstream: SocketAddr) -> Self {
        Self::new(upstream, http::serve)
    }

    fn new(upstream: SocketAddr, serve: Serve) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            fault: Mutex::default(),
            live: Mutex::default(),
            most: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            requests: Mutex::default(),
        });
        let this = Self { address, shared, serve, listener: Mutex::new(None) };
        this.listen(listener);
        this
    }

    fn listen(&self, listener: TcpListener) {
        let (shared, serve) = (Arc::clone(&self.shared), self.serve);
        let accept = move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if matches!(shared.fault(), Fault::Down) {
                    break;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let Ok(id) = shared.enter(&stream) else { return };
                    // A broken connection is what this is about.
                    drop(serve(&shared, stream));
                    shared.leave(id);
                });
            }
        };
        *lock(&self.listener) = Some(thread::spawn(accept));
    }

    /// Ends listening, so that the port refuses.
    fn unlisten(&self) {
        if let Some(listener) = lock(&self.listener).take() {
            // Wakes it from waiting; it then sees that it shall be down.
            drop(TcpStream::connect(self.address));
            listener.join().unwrap();
        }
    }

    /// From here on this is wrong; open connections are cut.
    pub(crate) fn set(&self, fault: Fault) {
        let down = matches!(fault, Fault::Down);
        *lock(&self.shared.fault) = fault;
        if down {
            self.unlisten();
        }
        self.shared.cut();
        if !down && lock(&self.listener).is_none() {
            self.listen(TcpListener::bind(self.address).unwrap());
        }
    }

    /// Connections open at the same time, at most, since the start.
    pub(crate) fn most_connections(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub(crate) fn open_connections(&self) -> usize {
        lock(&self.shared.live).open.len()
    }

    /// Connections taken since the start.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// What was asked since the last time, as [`FaultProxy::http`] names requests.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.shared.requests))
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        *lock(&self.shared.fault) = Fault::Down;
        self.unlisten();
        self.shared.cut();
    }
}

/// Waits until the other side ends the connection, or somebody cuts it.
pub(super) fn hang(mut client: &TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(LIMIT))?;
    let (begun, mut buffer) = (Instant::now(), [0; 4096]);
    while begun.elapsed() < LIMIT && client.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Noise that is no protocol's, and the same each time.
pub(super) fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(512).collect()
}

pub(super) fn connect(upstream: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(upstream)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Passes bytes both ways.
fn relay(shared: &Shared, client: TcpStream) -> io::Result<()> {
    let mut allowed = usize::MAX;
    match shared.fault() {
        Fault::Hang => return hang(&client),
        Fault::Garbage => {
            // After the question, so that the end of the connection does not overtake the noise.
            let _asked = (&client).read(&mut [0; 4096])?;
            return (&client).write_all(&noise());
        }
        Fault::CutAfter(bytes) => allowed = bytes,
        Fault::None | Fault::Slow(_) | Fault::Down => {}
        Fault::Http(_) => panic!("this relay knows nothing of HTTP"),
    }
    let server = connect(shared.upstream)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let requests = thread::spawn(move || {
        drop(io::copy(&mut from_client, &mut to_server));
        drop(to_server.shutdown(Shutdown::Write));
    });
    let mut buffer = [0; 16 * 1024];
    let answers = || -> io::Result<()> {
        while allowed > 0 {
            let got = (&server).read(&mut buffer)?;
            if got == 0 {
                break;
            }
            if let Fault::Slow(pause) = shared.fault() {
                thread::sleep(pause.min(LIMIT));
            }
            let passed = got.min(allowed);
            (&client).write_all(&buffer[..passed])?;
            allowed -= passed;
        }
        Ok(())
    };
    let done = { answers }();
    drop(client.shutdown(Shutdown::Both));
    drop(server.shutdown(Shutdown::Both));
    drop(requests.join());
    done
}
