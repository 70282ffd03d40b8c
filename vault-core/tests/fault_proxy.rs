//! That the relay of the fault tests does what its faults are called.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[expect(dead_code, reason = "shared by several test programs, each of which uses a part")]
#[path = "common/fault_proxy.rs"]
mod fault_proxy;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use fault_proxy::{Fault, FaultProxy};

const PATIENCE: Duration = Duration::from_secs(10);

/// Gives each connection back what it says, until it ends.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    address
}

/// Says `hello` and hears what comes back, five bytes at most.
fn hello(mut stream: &TcpStream, patience: Duration) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"hello")?;
    let mut heard = Vec::new();
    stream.take(5).read_to_end(&mut heard)?;
    Ok(heard)
}

#[test]
fn a_relay_of_bytes_passes_them_or_does_what_its_fault_says() {
    let proxy = FaultProxy::tcp(echo());
    let connect = || TcpStream::connect(proxy.address);
    let kept = connect().unwrap();
    assert_eq!(hello(&kept, PATIENCE).unwrap(), b"hello");

    // A change cuts what was open.
    proxy.set(Fault::CutAfter(3));
    assert!(hello(&kept, PATIENCE).map_or(true, |heard| heard.is_empty()));
    assert_eq!(hello(&connect().unwrap(), PATIENCE).unwrap(), b"hel");

    proxy.set(Fault::Hang);
    let begun = Instant::now();
    assert!(hello(&connect().unwrap(), Duration::from_millis(300)).is_err());
    assert!(begun.elapsed() >= Duration::from_millis(290));

    proxy.set(Fault::Slow(Duration::from_millis(300)));
    let begun = Instant::now();
    assert_eq!(hello(&connect().unwrap(), PATIENCE).unwrap(), b"hello");
    assert!(begun.elapsed() >= Duration::from_millis(290));

    proxy.set(Fault::Garbage);
    let heard = hello(&connect().unwrap(), PATIENCE);
    assert!(heard.as_ref().is_ok_and(|heard| heard.len() == 5 && heard != b"hello"), "{heard:?}");

    proxy.set(Fault::Down);
    assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    proxy.set(Fault::None);
    assert_eq!(hello(&connect().unwrap(), PATIENCE).unwrap(), b"hello");

    let address = proxy.address;
    drop(proxy);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}
