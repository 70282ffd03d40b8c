//! The part of the fault proxy that knows HTTP/1.1: requests and answers with a `Content-Length`, one after the other.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

use super::{Fault, LIMIT, Shared, connect, hang, noise};

/// A request or an answer: its first line, its header lines without the length, and its body.
#[derive(Clone, Debug)]
struct Message {
    first: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

/// What becomes of a body.
type Alter = dyn Fn(&[u8]) -> Vec<u8> + Send + Sync;

/// A fault of HTTP.
#[derive(Clone)]
pub(crate) enum HttpFault {
    /// Everything is answered with this status and body, and nothing is passed on.
    Answer(u16, String),
    /// The answer's body is altered; the length is put right.
    Edit(Arc<Alter>),
    /// The request's body is altered.
    Redirect(Arc<Alter>),
    /// The answer promises its whole length and ends in the middle of its body.
    CutInBody,
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

fn read(from: &mut BufReader<TcpStream>) -> io::Result<Option<Message>> {
    let line = |from: &mut BufReader<TcpStream>| -> io::Result<String> {
        let mut line = String::new();
        from.by_ref().take(64 * 1024).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    };
    let first = line(from)?;
    if first.is_empty() {
        return Ok(None);
    }
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let header = line(from)?;
        let Some((name, value)) = header.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(|_| bad("length"))?,
            "transfer-encoding" => return Err(bad("a length is needed")),
            "connection" => {}
            _ => headers.push(header),
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some(Message { first, headers, body }))
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{}\r\n", self.first);
        for header in &self.headers {
            out.push_str(header);
            out.push_str("\r\n");
        }
        out.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        [out.into_bytes(), self.body.clone()].concat()
    }

    fn name(&self) -> String {
        let target = self.headers.iter().find_map(|header| {
            let (name, value) = header.split_once(':')?;
            name.eq_ignore_ascii_case("x-amz-target").then(|| value.trim())
        });
        let path = || self.first.split(' ').nth(1).unwrap_or_default();
        target.and_then(|target| target.rsplit('.').next()).unwrap_or_else(path).to_owned()
    }
}

fn ask(shared: &Shared, request: &Message) -> io::Result<Message> {
    let mut server = connect(shared.upstream)?;
    server.write_all(&request.bytes())?;
    read(&mut BufReader::new(server))?.ok_or_else(|| bad("no answer"))
}

/// Serves one connection until a fault or its client ends it.
pub(super) fn serve(shared: &Shared, mut client: TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(LIMIT))?;
    let mut requests = BufReader::new(client.try_clone()?);
    while let Some(mut request) = read(&mut requests)? {
        shared.count(request.name());
        let answer = match shared.fault() {
            Fault::None => ask(shared, &request)?.bytes(),
            Fault::Slow(pause) => {
                let answer = ask(shared, &request)?.bytes();
                thread::sleep(pause.min(LIMIT));
                answer
            }
            Fault::Down => return Ok(()),
            Fault::Hang => return hang(&client),
            Fault::Garbage => return client.write_all(&noise()),
            Fault::CutAfter(bytes) => {
                let answer = ask(shared, &request)?.bytes();
                return client.write_all(&answer[..bytes.min(answer.len())]);
            }
            Fault::Http(HttpFault::CutInBody) => {
                let answer = ask(shared, &request)?;
                let bytes = answer.bytes();
                return client.write_all(&bytes[..bytes.len() - answer.body.len() / 2]);
            }
            Fault::Http(HttpFault::Answer(status, body)) => {
                let headers = vec!["Content-Type: application/x-amz-json-1.1".to_owned()];
                Message { first: format!("HTTP/1.1 {status} X"), headers, body: body.into_bytes() }.bytes()
            }
            Fault::Http(HttpFault::Edit(edit)) => {
                let mut answer = ask(shared, &request)?;
                answer.body = edit(&answer.body);
                answer.bytes()
            }
            Fault::Http(HttpFault::Redirect(edit)) => {
                request.body = edit(&request.body);
                ask(shared, &request)?.bytes()
            }
        };
        client.write_all(&answer)?;
    }
    Ok(())
}
