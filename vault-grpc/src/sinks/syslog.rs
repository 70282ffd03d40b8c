//! Syslog (RFC 5424) over TLS (RFC 5425).
//!
//! RFC 5425 has no acknowledgement: what is confirmed here is written and flushed into the TLS session. What the server
//! has not read yet when the connection breaks would be lost, so the last messages are kept, and sent again on the next
//! connection before anything else. The server drops what it has by the index.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, Stream};
use rustls_pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};
use vault_core::audit::{Body, Delivered, Sink};

use super::fields::{facts, rfc3339};
use super::text;
use crate::config::{ConfigError, Fields, Syslog};
use crate::tls::ClientTls;

/// Facility 13, log audit (RFC 5424 section 6.2.1).
const FACILITY: u8 = 13;
const INFORMATIONAL: u8 = 6;
const WARNING: u8 = 4;
/// The structured data's name. 32473 is the enterprise number that IANA keeps for examples (RFC 5612).
const SD_ID: &str = "blindvault@32473";
/// Bytes of messages that are kept to be sent again, and of the buffer in which the operating system holds what the
/// server has not taken: well below, so that the rest is for what the server holds unread.
const KEPT: usize = 1 << 20;
const SEND_BUFFER: usize = 64 << 10;

const BROKEN: &str = "the connection to the server broke";
const TOO_SLOW: &str = "the server does not read within the deadline";

/// A syslog server.
#[derive(Debug)]
pub(super) struct SyslogSink {
    server: Syslog,
    tls: ClientTls,
    name: ServerName<'static>,
    timeout: Duration,
    format: Format,
    connection: Option<Connection>,
    kept: VecDeque<Vec<u8>>,
    kept_bytes: usize,
}

struct Connection {
    tcp: TcpStream,
    tls: ClientConnection,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// How an entry becomes a message.
#[derive(Debug)]
struct Format {
    origin: String,
    fields: Fields,
    most: usize,
}

impl SyslogSink {
    pub(super) fn load(server: &Syslog, timeout: Duration, origin: &str, fields: Fields) -> Result<Self, ConfigError> {
        let name = ServerName::try_from(server.host.clone())
            .map_err(|_| server.roots.error("is for a host whose name no certificate can have"))?;
        let tls = ClientTls::load(&server.roots, server.client.as_ref())?;
        let format = Format { origin: origin.to_owned(), fields, most: server.message_bytes };
        let server = server.clone();
        Ok(Self { server, tls, name, timeout, format, connection: None, kept: VecDeque::new(), kept_bytes: 0 })
    }

    /// The connection: a new one if there is none, or the server has closed it. Sends again what may be lost.
    fn connected(&mut self) -> Result<&mut Connection, &'static str> {
        if self.connection.as_mut().is_some_and(|connection| !connection.is_open()) {
            self.connection = None;
        }
        if self.connection.is_none() {
            let mut made = self.connect()?;
            for message in &self.kept {
                made.write(message)?;
            }
            made.flush()?;
            return Ok(self.connection.insert(made));
        }
        self.connection.as_mut().ok_or(BROKEN)
    }

    fn connect(&self) -> Result<Connection, &'static str> {
        let config = self.tls.config().map_err(|_| "our certificate for the server, or its key, cannot be used")?;
        let addresses = (self.server.host.as_str(), self.server.port).to_socket_addrs();
        let addresses = addresses.map_err(|_| "the name of the server cannot be resolved")?;
        let begun = Instant::now();
        let mut tcp = Err("the server cannot be reached");
        for address in addresses {
            let left = self.timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            if let Ok(made) = reach(address, left) {
                tcp = Ok(made);
                break;
            }
        }
        let mut tcp = tcp?;
        let set = tcp.set_nodelay(true).and_then(|()| tcp.set_read_timeout(Some(self.timeout)));
        set.and_then(|()| tcp.set_write_timeout(Some(self.timeout))).map_err(|_| BROKEN)?;
        let mut tls = ClientConnection::new(Arc::new(config), self.name.clone()).map_err(|_| BROKEN)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => "the server does not prove its name under the configured roots",
                _ => why(&error),
            })?;
        }
        Ok(Connection { tcp, tls })
    }

    fn send(&mut self, messages: &[Vec<u8>]) -> Result<(), &'static str> {
        let result = self.connected().and_then(|connection| {
            messages.iter().try_for_each(|message| connection.write(message))?;
            connection.flush()
        });
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    fn keep(&mut self, messages: Vec<Vec<u8>>) {
        for message in messages {
            self.kept_bytes += message.len();
            self.kept.push_back(message);
        }
        while self.kept_bytes > KEPT {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes = self.kept_bytes.saturating_sub(oldest.len());
        }
    }
}

fn reach(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.connect_timeout(&address.into(), timeout)?;
    Ok(socket.into())
}

fn why(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => TOO_SLOW,
        _ => BROKEN,
    }
}

impl Connection {
    fn write(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        Stream::new(&mut self.tls, &mut self.tcp).write_all(bytes).map_err(|error| why(&error))
    }

    fn flush(&mut self) -> Result<(), &'static str> {
        Stream::new(&mut self.tls, &mut self.tcp).flush().map_err(|error| why(&error))
    }

    /// Takes what the server says, which is nothing but that it ends, and tickets.
    fn is_open(&mut self) -> bool {
        if self.tcp.set_nonblocking(true).is_err() {
            return false;
        }
        let open = loop {
            match self.tls.read_tls(&mut self.tcp) {
                Ok(0) => break false,
                Ok(_) => match self.tls.process_new_packets() {
                    Ok(state) if state.peer_has_closed() => break false,
                    // A syslog server has nothing to say.
                    Ok(state) if state.plaintext_bytes_to_read() > 0 => break false,
                    Ok(_) => {}
                    Err(_) => break false,
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
            }
        };
        open && self.tcp.set_nonblocking(false).is_ok()
    }
}

impl Sink for SyslogSink {
    fn kind(&self) -> &'static str {
        "syslog"
    }

    fn most(&self) -> usize {
        512
    }

    fn check(&mut self) -> Result<(), &'static str> {
        self.send(&[])
    }

    fn deliver(&mut self, entries: &[Delivered]) -> Result<(), &'static str> {
        let messages: Vec<Vec<u8>> = entries.iter().map(|entry| self.format.frame(entry)).collect();
        let had_one = self.connection.is_some();
        let sent = match self.send(&messages) {
            // The server may have ended the connection long ago; a new one is worth trying at once.
            Err(BROKEN) if had_one => self.send(&messages),
            result => result,
        };
        sent.map(|()| self.keep(messages))
    }
}

impl Format {
    /// With octet counting (RFC 5425 section 4.3).
    fn frame(&self, entry: &Delivered) -> Vec<u8> {
        let header = self.header(entry);
        let mut message = format!("{header} {}", text(self.fields, &self.origin, entry));
        if message.len() > self.most {
            message = format!("{header} {{\"too_long\":{}}}", message.len());
        }
        format!("{} {message}", message.len()).into_bytes()
    }

    /// Everything before the text. Its length is bounded: a log's name has 200 bytes at most.
    fn header(&self, entry: &Delivered) -> String {
        let Delivered { entry, leaf_hash } = entry;
        let severity = match &entry.body {
            Body::Refused { .. } => WARNING,
            _ => INFORMATIONAL,
        };
        let facts = facts(entry);
        let kind = facts.get("kind").and_then(|kind| kind.as_str()).unwrap_or("-");
        // The last part of the log's name is the instance: printable, and without spaces.
        let instance = self.origin.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("-");
        let priority = FACILITY * 8 + severity;
        let mut header = format!("<{priority}>1 {} {instance} blindvault - {kind} ", rfc3339(entry.time.0));
        let _ = write!(header, "[{SD_ID} log=\"{}\" index=\"{}\" leaf=\"", escaped(&self.origin), entry.index);
        leaf_hash.iter().for_each(|byte| _ = write!(header, "{byte:02x}"));
        header.push_str("\"]");
        header
    }
}

/// A parameter's value (RFC 5424 section 6.3.3).
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use vault_core::audit::Entry;
    use vault_core::time::Timestamp;

    use super::*;

    fn entry(detail: &str) -> Delivered {
        let body = Body::System { event: "refusals".into(), detail: detail.into(), first: 1, second: 2 };
        let entry =
            Entry { salt: [0; 16], index: 7, time: Timestamp(1_700_000_000_123), request: None, link: None, body };
        Delivered { entry, leaf_hash: [0xab; 32] }
    }

    #[test]
    fn a_message_is_counted_and_bounded_and_names_its_entry() {
        let format = Format { origin: "blindvault/prod".into(), fields: Fields::Ecs, most: 2048 };
        let frame = String::from_utf8(format.frame(&entry("no certificate"))).unwrap();
        let (count, message) = frame.split_once(' ').unwrap();
        assert_eq!(count.parse::<usize>().unwrap(), message.len());
        let leaf = "ab".repeat(32);
        let header = format!(
            "<110>1 2023-11-14T22:13:20.123Z prod blindvault - system \
             [blindvault@32473 log=\"blindvault/prod\" index=\"7\" leaf=\"{leaf}\"] "
        );
        let said: serde_json::Value = serde_json::from_str(message.strip_prefix(&header).unwrap()).unwrap();
        assert_eq!(said["event"]["sequence"], 7);
        let long = String::from_utf8(format.frame(&entry(&"x".repeat(4000)))).unwrap();
        let (count, message) = long.split_once(' ').unwrap();
        assert_eq!(count.parse::<usize>().unwrap(), message.len());
        assert!(
            message.len() < 2048 && message.contains("index=\"7\"") && message.contains("{\"too_long\":4"),
            "{message}"
        );
    }

    #[test]
    fn values_of_structured_data_are_escaped() {
        assert_eq!(escaped(r#"a"b\c]d"#), r#"a\"b\\c\]d"#);
    }
}
