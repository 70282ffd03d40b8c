//! A network between a store and its database that a test can spoil.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const PASS: u8 = 0;
const SWALLOW: u8 = 1;
const REFUSE: u8 = 2;
const END: u8 = 3;

/// Passes everything on, until told otherwise.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let (mode, open) = (Arc::new(AtomicU8::new(PASS)), Arc::new(Mutex::new(Vec::new())));
        let proxy = Self { port: own, mode: Arc::clone(&mode), open: Arc::clone(&open) };
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { continue };
                match mode.load(Ordering::SeqCst) {
                    END => return,
                    REFUSE => drop(client),
                    _ => {
                        let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                        let mut open = open.lock().unwrap();
                        for (from, to) in [(&client, &server), (&server, &client)] {
                            open.push(from.try_clone().unwrap());
                            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                            let mode = Arc::clone(&mode);
                            thread::spawn(move || copy(from, to, &mode));
                        }
                    }
                }
            }
        });
        proxy
    }

    /// Everything is let through again; what was swallowed is lost, and its connections with it.
    pub(crate) fn mend(&self) {
        self.mode.store(PASS, Ordering::SeqCst);
        self.cut();
    }

    /// Nothing arrives any more, in either direction, and nobody is told.
    pub(crate) fn swallow(&self) {
        self.mode.store(SWALLOW, Ordering::SeqCst);
    }

    /// Connections are closed, new ones at once.
    pub(crate) fn refuse(&self) {
        self.mode.store(REFUSE, Ordering::SeqCst);
        self.cut();
    }

    /// Closes what is open; new connections are as before.
    pub(crate) fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.mode.store(END, Ordering::SeqCst);
        self.cut();
        // Wakes the listener.
        let _ = TcpStream::connect_timeout(&([127, 0, 0, 1], self.port).into(), Duration::from_secs(1));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, mode: &AtomicU8) {
    let mut buffer = [0; 16_384];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if mode.load(Ordering::SeqCst) == PASS && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

// A test file uses a part of this; naming all of it here keeps the rest from being reported as dead.
const _: () = {
    let _ = (Proxy::mend, Proxy::swallow, Proxy::refuse, Proxy::cut);
};
