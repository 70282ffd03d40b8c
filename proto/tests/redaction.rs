//! No message of the protocol prints what its classes say is secret, whatever a caller put where.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use vault_proto::classes::{self, class_of};
use vault_proto::redact::redacted;
use vault_proto::v1::{DataClass, Tenant, TenantState};

/// Has the form of an identifier, so that nothing but its class can keep it hidden.
const CANARY: &str = "canary-5f1d";
/// Does not have the form of an identifier, so that it must be hidden whatever the class.
const LOOSE: &str = "Canary 5f1d!";
/// A value of a class that may be logged.
const PUBLIC: &str = "public-77aa";

/// The texts a field gets, by its class.
type Fill = fn(DataClass) -> &'static str;

fn scalar(kind: &Kind, text: &str) -> Option<Value> {
    Some(match kind {
        Kind::String => Value::String(text.into()),
        Kind::Bytes => Value::Bytes(text.as_bytes().to_vec().into()),
        _ => return None,
    })
}

/// A message with every field set, `variant` choosing the member of each oneof.
fn filled(message: &MessageDescriptor, variant: usize, fill: Fill) -> DynamicMessage {
    let mut out = DynamicMessage::new(message.clone());
    for field in message.fields() {
        if let Some(oneof) = field.containing_oneof().filter(|o| !o.is_synthetic()) {
            let members: Vec<FieldDescriptor> = oneof.fields().collect();
            if members.get(variant % members.len()).unwrap().number() != field.number() {
                continue;
            }
        }
        let text = fill(class_of(&field).unwrap());
        let single = |kind: &Kind| match kind {
            Kind::Message(inner) if inner.package_name() == "vault.v1" => {
                Some(Value::Message(filled(inner, variant, fill)))
            }
            kind => scalar(kind, text),
        };
        let value = if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
            let value = single(&entry.map_entry_value_field().kind()).unwrap();
            Some(Value::Map(HashMap::from([(MapKey::String(text.into()), value)])))
        } else if field.is_list() {
            single(&field.kind()).map(|v| Value::List(vec![v]))
        } else {
            single(&field.kind())
        };
        if let Some(value) = value {
            out.set_field(&field, value);
        }
    }
    out
}

/// The printed form of every message of the protocol, filled.
fn printed(fill: Fill) -> Vec<(String, String)> {
    let pool = classes::pool(vault_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut out = Vec::new();
    for message in pool.all_messages().filter(|m| m.package_name() == "vault.v1" && !m.is_map_entry()) {
        for variant in 0..2 {
            let encoded = filled(&message, variant, fill).encode_to_vec();
            let text = redacted(message.full_name(), &encoded).unwrap().unwrap();
            out.push((message.full_name().to_owned(), text));
        }
    }
    out
}

/// The ways in which `Debug` might show a text: as it is, as a list of bytes, as hexadecimal.
fn shows(printed: &str, needle: &str) -> bool {
    let list = needle.bytes().take(4).map(|b| b.to_string()).collect::<Vec<_>>().join(", ");
    let hex: String = needle.bytes().take(4).map(|b| format!("{b:02x}")).collect();
    let printed: String = printed.to_lowercase();
    [needle.to_lowercase(), list, hex].iter().any(|form| printed.contains(form))
}

#[test]
fn secret_classes_are_never_printed() {
    let fill: Fill = |class| match class {
        DataClass::Identifier | DataClass::Metadata => PUBLIC,
        _ => CANARY,
    };
    let all = printed(fill);
    assert!(all.len() > 40, "the walk met only {} messages", all.len());
    for (name, text) in &all {
        assert!(!shows(text, CANARY), "{name} prints a secret");
    }
    // The positive control: what may be logged is there, so the walk does print the fields it fills.
    assert!(all.iter().filter(|(_, text)| text.contains(PUBLIC)).count() > 30);
}

#[test]
fn values_without_the_form_of_an_identifier_are_never_printed() {
    for (name, text) in printed(|_| LOOSE) {
        assert!(!shows(&text, LOOSE), "{name} prints an unchecked value");
    }
}

#[test]
fn the_search_finds_a_needle_in_every_form() {
    for text in [format!("a {CANARY} b"), format!("{:?}", CANARY.as_bytes()), "63616e617279".into()] {
        assert!(shows(&text, CANARY));
    }
}

#[test]
fn numbers_states_and_names_are_printed() {
    let tenant = Tenant {
        tenant: "acme".into(),
        state: TenantState::Suspended.into(),
        active_key_version: 7,
        root_key_id: "arn:aws:kms:eu-west-1:111122223333:key/1234abcd".into(),
        ..Default::default()
    };
    let text = format!("{tenant:?}");
    for part in ["acme", "Suspended", "active_key_version: 7", "arn:aws:kms:eu-west-1"] {
        assert!(text.contains(part), "{part} is missing");
    }
}
