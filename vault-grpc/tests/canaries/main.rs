//! A canary in every field that bears something secret never comes out again, by any way but the answer: not in log
//! lines, metrics, statuses, audit log, store, database, its log, backups. And the keys' own bytes do not either.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![cfg_attr(feature = "postgres", expect(clippy::disallowed_macros, reason = "a test says that it is skipped"))]

mod fill;
mod forms;
mod panics;
#[path = "../hardening/served.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod served;

#[cfg(feature = "postgres")]
#[path = "../common/pg_site.rs"]
mod pg_site;
#[cfg(feature = "postgres")]
#[path = "../../../vault-core/tests/common/postgres.rs"]
mod postgres;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fill::Fill;
use forms::Needles;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use served::{Served, Site};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};
use vault_client::{Target, VaultClient};
use vault_proto::classes;
use vault_proto::v1::Plane;

const SUBJECT: &str = "Subject-canary-61c9f07ab2";
const CONTEXT: &str = "Context-canary-0d83e7514f";
const PLAINTEXT: &str = "Plaintext-canary-b42f96d8e1";
const KEY: &str = "Key-canary-97ae30c5d86b14";
const TOKEN: &str = "Token-canary-5e7c1b92fa04";
/// Given where no field is for it: names of other things, headers, paths, junk.
const STRAY: &str = "Stray-canary-c8147db36e95";

/// Everything that came out, by where it did.
type Seen = Vec<(String, Vec<u8>)>;

/// The private bytes of the site's keys.
fn keys(site: &Site) -> Vec<(&'static str, Vec<u8>)> {
    let pem = fs::read_to_string(site.path("certs/gateway.key")).unwrap();
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let tls = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    vec![
        // The form of each file begins with what is no secret.
        ("root key", fs::read(site.path("root.key")).unwrap()[16..48].to_vec()),
        ("log key", fs::read(site.path("audit.key")).unwrap()[16..48].to_vec()),
        ("TLS key", tls[36..68].to_vec()),
    ]
}

fn methods(plane: Plane) -> Vec<MethodDescriptor> {
    let pool = classes::pool(vault_proto::FILE_DESCRIPTOR_SET).unwrap();
    let of = pool.services().filter(|service| classes::plane_of(service) == Some(plane));
    of.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

/// Calls a method; what is answered is not read, what is refused is.
async fn call(channel: &Channel, path: &str, message: DynamicMessage, seen: &mut Seen) -> bool {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let mut request = Request::new(message);
    for name in ["authorization", "x-forwarded-user", "x-request-id", "baggage"] {
        request.metadata_mut().insert(name, STRAY.parse().unwrap());
    }
    let codec = tonic_prost::ProstCodec::<DynamicMessage, ()>::default();
    let answered = grpc.unary(request, PathAndQuery::try_from(path).unwrap(), codec).await;
    match answered {
        Ok(_) => true,
        Err(status) => {
            refused(path, &status, seen);
            false
        }
    }
}

fn refused(path: &str, status: &Status, seen: &mut Seen) {
    let said = format!("{status:?} {} {:?}", status.message(), status.metadata());
    seen.push((format!("the status of {path}"), [said.as_bytes(), status.details()].concat()));
}

fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// A token of nobody, with the canary in header, claims and signature.
fn jwt() -> Vec<u8> {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let header = part(format!(r#"{{"alg":"ES256","typ":"at+jwt","kid":"{TOKEN}"}}"#));
    let claims = part(format!(r#"{{"iss":"https://{TOKEN}.example","sub":"{TOKEN}","aud":"vault","exp":4102444800}}"#));
    format!("{header}.{claims}.{}", part(TOKEN.into())).into_bytes()
}

/// Every data call in every way: answered, refused for its parts, undecodable, with its tenant suspended. Answers how many
/// were answered.
async fn data_calls(channel: &Channel, good: &Fill, seen: &mut Seen) -> usize {
    let with = |change: &dyn Fn(&mut Fill)| {
        let mut fill = good.clone();
        change(&mut fill);
        fill
    };
    let ways = [
        good.clone(),
        with(&|fill| fill.token = Some(TOKEN.into())),
        with(&|fill| fill.token = Some(jwt())),
        with(&|fill| fill.token = Some([TOKEN.as_bytes(), &[0xff; 9000]].concat())),
        with(&|fill| fill.subject = format!("{SUBJECT} two words")),
        with(&|fill| fill.subject = SUBJECT.repeat(20)),
        with(&|fill| fill.context = CONTEXT.repeat(400)),
        with(&|fill| fill.plaintext = PLAINTEXT.repeat(60_000).into_bytes()),
        // Another context: the envelope does not open. Then one that is none, and one that is none but begins well.
        with(&|fill| fill.context = format!("{CONTEXT}-other")),
        with(&|fill| fill.envelope = PLAINTEXT.repeat(8).into_bytes()),
        with(&|fill| fill.envelope = [&good.envelope[..30], PLAINTEXT.repeat(8).as_bytes()].concat()),
        with(&|fill| fill.identifier = Some(STRAY.into())),
        with(&|fill| fill.tenant = "globex"),
    ];
    let mut answered = 0;
    for method in methods(Plane::Data) {
        for way in &ways {
            answered += usize::from(call(channel, &path(&method), way.message(&method.input()), seen).await);
        }
        undecodable(channel, &path(&method), seen).await;
    }
    answered
}

/// A request that is no message: a length that lies, then a canary.
async fn undecodable(channel: &Channel, path: &str, seen: &mut Seen) {
    let pool = classes::pool(vault_proto::FILE_DESCRIPTOR_SET).unwrap();
    // As an unknown field of a message that happens to have the same bytes on the wire as a broken one of another.
    let any = pool.get_message_by_name("vault.v1.EncryptRequest").unwrap();
    let junk = [&[0x0a, 0x80, 0x01][..], STRAY.as_bytes()].concat();
    assert!(DynamicMessage::decode(any, junk.as_slice()).is_err());
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<Raw, ()>::default();
    if let Err(status) = grpc.unary(Request::new(Raw(junk)), PathAndQuery::try_from(path).unwrap(), codec).await {
        refused(path, &status, seen);
    }
}

/// Bytes that go over the wire as they are.
#[derive(Debug, Default)]
struct Raw(Vec<u8>);

impl prost::Message for Raw {
    fn encode_raw(&self, buf: &mut impl prost::bytes::BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        _: &mut impl prost::bytes::Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {}
}

fn metrics(at: SocketAddr) -> Vec<u8> {
    let mut tcp = TcpStream::connect(at).unwrap();
    tcp.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut all = Vec::new();
    tcp.read_to_end(&mut all).unwrap();
    all
}

fn files(dir: &Path, seen: &mut Seen) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, seen);
        } else {
            seen.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}

/// Does all of it, and answers what came out but for a database.
async fn everything(site: &Site, format: &str) -> Seen {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = fs::read_to_string(&site.made.config).unwrap();
    let text = text.split("\n[logs]").next().unwrap().to_owned();
    fs::write(&site.made.config, format!("{text}\n[logs]\nformat = \"{format}\"\n[metrics]\naddress = \"{free}\"\n"))
        .unwrap();
    site.hand_over();
    let mut command = site.command(&["serve", "--config"]);
    // Whatever could ask for more words, asks for all of them.
    command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full").env("RUST_LIB_BACKTRACE", "full");
    let stdout = site.dir.path().join("stdout");
    command.stdout(fs::File::create(&stdout).unwrap());
    let served = Served::start(command);
    let mut seen: Seen = vec![("log lines at the start".into(), served.said.join("\n").into_bytes())];

    let operator = site.operator(&served).await;
    operator.create_tenant("acme", None, "test").await.unwrap();
    operator.create_dataset("acme", "customers", "", "", "test").await.unwrap();
    let endpoint = site.endpoint(served.data, "billing");
    let workload = VaultClient::connect(&endpoint).await.unwrap();
    let target = Target::new("acme", "customers", "billing").subject(SUBJECT).context(CONTEXT, CONTEXT);
    let sealed = workload.encrypt(&target, PLAINTEXT.as_bytes()).await.unwrap();
    let good = Fill {
        subject: SUBJECT.into(),
        context: CONTEXT.into(),
        plaintext: PLAINTEXT.into(),
        key: KEY.into(),
        token: None,
        envelope: sealed.envelope.to_vec(),
        identifier: None,
        tenant: "acme",
    };
    let channel = endpoint.channel().await.unwrap();
    let answered = data_calls(&channel, &good, &mut seen).await;
    assert!(answered >= 5, "{answered} calls with canaries were answered");
    call(&channel, &format!("/vault.v1.CryptoService/{STRAY}"), good_message(&good), &mut seen).await;
    call(&channel, &format!("/{STRAY}?{STRAY}={STRAY}"), good_message(&good), &mut seen).await;

    // The control plane, whose calls may name a subject; each with names that do not exist, so that nothing is shredded.
    let control = site.endpoint(served.control, "operator-alice").channel().await.unwrap();
    for method in methods(Plane::Control) {
        for identifier in [Some("no-such"), Some(STRAY)] {
            let fill = Fill { identifier: identifier.map(Into::into), ..good.clone() };
            call(&control, &path(&method), fill.message(&method.input()), &mut seen).await;
        }
        undecodable(&control, &path(&method), &mut seen).await;
    }
    operator.shred_subject("acme", SUBJECT, "test").await.unwrap();
    seen.push(("metrics".into(), metrics(free)));
    operator.suspend_tenant("acme", "test").await.unwrap();
    let before = seen.len();
    data_calls(&channel, &good, &mut seen).await;
    assert!(seen.len() > before + 50, "a suspended tenant is refused");
    seen.push(("metrics, later".into(), metrics(free)));
    drop((operator, workload, channel, control));
    let said = served.stop();
    assert!(said.iter().any(|line| line.contains("stopped")));
    seen.push(("log lines".into(), said.join("\n").into_bytes()));
    seen.push(("stdout".into(), fs::read(stdout).unwrap()));

    let backup = site.dir.path().join("backup");
    let mut command = site.command(&["backup", "--config"]);
    let out = command.arg("--out").arg(&backup).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    seen.push(("the backup".into(), fs::read(&backup).unwrap()));
    seen.push(("what the backup said".into(), [out.stdout, out.stderr].concat()));
    files(&site.path("data"), &mut seen);
    let log = seen.iter().find(|(place, _)| place.ends_with("entries.log")).unwrap().1.clone();
    // The log is written in blocks that each are XOR a byte (docs/audit.md, "Frames"), the entry bundles are not.
    seen.extend((1..=255).map(|mask| (format!("the log, unmasked by {mask}"), log.iter().map(|b| b ^ mask).collect())));
    // The control: what the log may tell is seen in both.
    let told = |part: &str| {
        let mut places = seen.iter().filter(|(place, _)| place.contains(part));
        places.any(|(_, bytes)| contains(bytes, b"customers"))
    };
    assert!(told("unmasked") && told("/tile/entries/"), "{} bytes of log", log.len());
    seen
}

fn good_message(good: &Fill) -> DynamicMessage {
    let pool = classes::pool(vault_proto::FILE_DESCRIPTOR_SET).unwrap();
    good.message(&pool.get_message_by_name("vault.v1.EncryptRequest").unwrap())
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

fn canaries() -> Vec<(&'static str, Vec<u8>)> {
    let texts = [
        ("subject", SUBJECT),
        ("context", CONTEXT),
        ("plaintext", PLAINTEXT),
        ("key", KEY),
        ("token", TOKEN),
        ("stray", STRAY),
    ];
    texts.map(|(name, text)| (name, text.as_bytes().to_vec())).into()
}

/// Searches all of it; but for the rows of the embedded store, where subjects stand as they are, which is documented.
fn search(secrets: &[(&'static str, Vec<u8>)], seen: &Seen) {
    let needles = Needles::new(secrets.iter().map(|(name, secret)| (*name, secret.as_slice())));
    assert!(seen.len() > 100, "{} places", seen.len());
    let mut subjects = 0;
    for (place, bytes) in seen {
        let found = needles.found(bytes);
        let (subject, other): (Vec<&str>, Vec<&str>) =
            found.into_iter().partition(|found| found.starts_with("subject, "));
        assert!(other.is_empty(), "{place} shows {other:?}");
        let is_store = place.ends_with("vault.redb");
        assert!(is_store || subject.is_empty(), "{place} shows {subject:?}");
        subjects += usize::from(is_store && !subject.is_empty());
        // The control: one that is planted there, in the middle, is found.
        let (name, secret) = &secrets[bytes.len() % secrets.len()];
        let (before, after) = bytes.split_at(bytes.len() / 2);
        let (before, after) = (&before[before.len().saturating_sub(1000)..], &after[..after.len().min(1000)]);
        let planted = [before, secret, after].concat();
        assert!(needles.found(&planted).iter().any(|found| found.starts_with(name)), "{place}: {name} planted");
    }
    let embedded = seen.iter().any(|(place, _)| place.ends_with("vault.redb"));
    assert_eq!(subjects, usize::from(embedded), "the search finds what really is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_come_out_nowhere_with_the_embedded_store() {
    let site = Site::new();
    let secrets = [canaries(), keys(&site)].concat();
    let seen = everything(&site, "text").await;
    search(&secrets, &seen);
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn canaries_come_out_nowhere_with_postgres() {
    let Some(server) = postgres::Server::own() else { return };
    let database = server.database();
    let (dir, made) = pg_site::configure_on(&server, &database);
    pg_site::patient(&made);
    let site = Site::of(dir, made);
    let secrets = [canaries(), keys(&site)].concat();
    let mut seen = everything(&site, "json").await;
    let tables = server.sql(&database, "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')");
    assert!(tables.lines().count() >= 2, "{tables}");
    for table in tables.lines() {
        // As a dump has them: bytes in hexadecimal.
        seen.push((format!("table {table}"), server.sql(&database, &format!("COPY {table} TO STDOUT")).into_bytes()));
    }
    seen.push(("the database's log".into(), fs::read(server.dir.join("log")).unwrap()));
    files(&server.dir.join("data/pg_wal"), &mut seen);
    search(&secrets, &seen);
}
