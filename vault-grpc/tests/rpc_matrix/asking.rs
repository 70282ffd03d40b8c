//! Requests made from the descriptors, and what was answered to them.

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _, Value};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use vault_proto::{FILE_DESCRIPTOR_SET, Rpc, classes};

/// What is sealed; no answer but a permitted one may hold it.
pub(crate) const MARK: &[u8] = b"DE89 3704 0044 0532 0130 00";

/// Sends and receives bytes as they are, whatever the message.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// What a request says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    pub(crate) tenant: String,
    pub(crate) dataset: String,
    pub(crate) envelope: Vec<u8>,
    /// The same as a stream.
    pub(crate) stream: Vec<u8>,
    pub(crate) token: Option<String>,
    /// For a grant.
    pub(crate) workload: String,
    pub(crate) end: i64,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// As the table shows it: `OK`, or the status with the check, field or dependency.
    pub(crate) says: String,
    /// Whether it holds what was sealed.
    pub(crate) has_mark: bool,
}

impl Answer {
    pub(crate) fn of(says: impl Into<String>) -> Self {
        Self { says: says.into(), has_mark: false }
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.says == "OK"
    }
}

pub(crate) struct Asker(DescriptorPool);

impl Asker {
    pub(crate) fn new() -> Self {
        Self(classes::pool(FILE_DESCRIPTOR_SET).unwrap())
    }

    fn message(&self, name: &str) -> MessageDescriptor {
        self.0.get_message_by_name(name).unwrap()
    }

    /// Whether a field of this name is in a message or in those that it holds.
    pub(crate) fn has(&self, message: &str, field: &str) -> bool {
        let (mut open, mut seen) = (vec![self.message(message)], Vec::new());
        while let Some(message) = open.pop() {
            if message.get_field_by_name(field).is_some() {
                return true;
            }
            seen.push(message.full_name().to_owned());
            let held = message.fields().filter_map(|field| field.kind().as_message().cloned());
            open.extend(held.filter(|held| !seen.contains(&held.full_name().to_owned())));
        }
        false
    }

    /// A message with every field that we know a value for, by its name; of several that exclude each other, the first.
    fn fill(&self, descriptor: &MessageDescriptor, ask: &Ask) -> DynamicMessage {
        self.fill_with(descriptor, ask, 0)
    }

    /// The same with another one of those that exclude each other.
    fn fill_with(&self, descriptor: &MessageDescriptor, ask: &Ask, one: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields() {
            let excluded = field.containing_oneof().is_some_and(|oneof| {
                !oneof.is_synthetic() && oneof.fields().nth(one).is_some_and(|chosen| chosen != field)
            });
            let optional = field.supports_presence() && !matches!(field.kind(), Kind::Message(_));
            let strings = |texts: &[&str]| Value::List(texts.iter().map(|t| Value::String((*t).to_owned())).collect());
            let value = match (field.name(), field.kind()) {
                _ if excluded => continue,
                ("tenant", _) => Value::String(ask.tenant.clone()),
                ("dataset", _) => Value::String(ask.dataset.clone()),
                ("datasets", Kind::String) => strings(&["plain"]),
                // Not the purpose of the data calls: what is granted here changes nothing for them.
                ("purposes", Kind::String) => strings(&["matrix"]),
                ("purpose", _) => Value::String("billing".to_owned()),
                ("roles", Kind::String) => strings(&["reader"]),
                ("reason", Kind::String) => Value::String("matrix".to_owned()),
                ("workload", Kind::String) => Value::String(ask.workload.clone()),
                ("plaintext", Kind::Bytes) => Value::Bytes(Bytes::from_static(MARK)),
                ("envelope", Kind::Bytes) if descriptor.name().starts_with("DecryptStream") => {
                    Value::Bytes(ask.stream.clone().into())
                }
                ("plaintext_size", Kind::Uint64) => Value::U64(MARK.len().try_into().unwrap()),
                ("envelope", Kind::Bytes) => Value::Bytes(ask.envelope.clone().into()),
                ("end_user_token", Kind::Bytes) => match &ask.token {
                    Some(token) => Value::Bytes(token.clone().into()),
                    None => continue,
                },
                ("subject", Kind::String) if !optional => Value::String("customer-1".to_owned()),
                ("approval" | "consent" | "grant", Kind::String) => Value::String("0".repeat(32)),
                (name, Kind::String) if name.ends_with("sha256") => Value::String("0".repeat(64)),
                ("end_time", Kind::Message(time)) if descriptor.name() == "GrantOrder" => {
                    let mut end = DynamicMessage::new(time);
                    end.set_field_by_name("seconds", Value::I64(ask.end));
                    Value::Message(end)
                }
                ("items", Kind::Message(held)) => Value::List(vec![Value::Message(self.fill(&held, ask))]),
                ("order", Kind::Message(held)) => Value::Message(self.fill(&held, ask)),
                // The message that begins a stream.
                (_, Kind::Message(held)) if !field.is_list() && field.containing_oneof().is_some() => {
                    Value::Message(self.fill(&held, ask))
                }
                _ => continue,
            };
            message.set_field(&field, value);
        }
        message
    }

    /// Asks, whether the RPC streams or not, and reads everything that is answered.
    pub(crate) async fn ask(&self, channel: &Channel, rpc: &Rpc, ask: &Ask) -> Answer {
        let message = self.message(rpc.request);
        // A stream is one message of each kind, in the order of their declaration.
        let service = self.0.get_service_by_name(rpc.service).unwrap();
        let streams = service.methods().any(|method| method.name() == rpc.method && method.is_client_streaming());
        let kinds = message.oneofs().find(|oneof| streams && !oneof.is_synthetic());
        let kinds = kinds.map_or(1, |oneof| oneof.fields().count());
        let requests = (0..kinds).map(|one| Bytes::from(self.fill_with(&message, ask, one).encode_to_vec()));
        let requests: Vec<_> = requests.collect();
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let sent = Request::new(tokio_stream::iter(requests));
        let mut answers = match grpc.streaming(sent, PathAndQuery::from_static(rpc.path), Raw).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return Answer::of(shown(&status)),
        };
        let mut answer = Answer::of("OK");
        loop {
            match answers.message().await {
                Ok(None) => return answer,
                Ok(Some(bytes)) => {
                    answer.has_mark |= bytes.windows(MARK.len()).any(|part| part == MARK);
                    let message = DynamicMessage::decode(self.message(rpc.response), bytes).unwrap();
                    if let Some(error) = item_error(&message) {
                        answer.says = format!("{error} (item)");
                    }
                }
                Err(status) => answer.says = shown(&status),
            }
            if answer.says != "OK" && !answer.says.ends_with("(item)") {
                return answer;
            }
        }
    }
}

/// The first error of an item, anywhere in an answer.
fn item_error(message: &DynamicMessage) -> Option<String> {
    if message.descriptor().name() == "ItemError" {
        let code = message.get_field_by_name("code")?.as_i32()?;
        return Some(code_name(Code::from_i32(code)));
    }
    message.fields().find_map(|(_, value)| match value {
        Value::Message(held) => item_error(held),
        Value::List(of) => of.iter().find_map(|value| value.as_message().and_then(item_error)),
        _ => None,
    })
}

/// As gRPC writes it.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn shown(status: &Status) -> String {
    let mut words = vec![code_name(status.code())];
    if let Some(info) = status.get_details_error_info() {
        let of = |key: &str| info.metadata.get(key).cloned();
        words.extend(of("check").or_else(|| of("dependency")));
    }
    if let Some(bad) = status.get_details_bad_request() {
        words.extend(bad.field_violations.into_iter().take(1).map(|violation| violation.field));
    }
    words.join(" ")
}
