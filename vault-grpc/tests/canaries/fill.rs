//! Requests whose every field of a secret class holds the canary of its class, by the descriptors: a field that is added
//! is filled without anything being written here.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use vault_proto::classes::class_of;
use vault_proto::v1::DataClass;

/// What goes where.
#[derive(Clone)]
pub(crate) struct Fill {
    pub(crate) subject: String,
    pub(crate) context: String,
    pub(crate) plaintext: Vec<u8>,
    pub(crate) key: Vec<u8>,
    /// Absent: fields of that class are left out.
    pub(crate) token: Option<Vec<u8>>,
    pub(crate) envelope: Vec<u8>,
    /// Instead of names that exist.
    pub(crate) identifier: Option<String>,
    pub(crate) tenant: &'static str,
}

impl Fill {
    fn text(&self, field: &FieldDescriptor, class: DataClass) -> Option<Vec<u8>> {
        Some(match class {
            DataClass::Subject => self.subject.clone().into_bytes(),
            DataClass::Context => self.context.clone().into_bytes(),
            DataClass::Plaintext => self.plaintext.clone(),
            DataClass::Key => self.key.clone(),
            DataClass::Token => self.token.clone()?,
            DataClass::Envelope => self.envelope.clone(),
            DataClass::Identifier => self.name(field.name()).into_bytes(),
            _ => b"test".to_vec(),
        })
    }

    fn name(&self, field: &str) -> String {
        match &self.identifier {
            Some(other) => other.clone(),
            None if field.starts_with("tenant") => self.tenant.into(),
            None if field.starts_with("dataset") => "customers".into(),
            None if field.starts_with("purpose") => "billing".into(),
            None => "0".repeat(32),
        }
    }

    pub(crate) fn message(&self, of: &MessageDescriptor) -> DynamicMessage {
        let mut out = DynamicMessage::new(of.clone());
        for field in of.fields() {
            if let Some(value) = self.value(&field) {
                out.set_field(&field, value);
            }
        }
        out
    }

    fn value(&self, field: &FieldDescriptor) -> Option<Value> {
        let class = class_of(field).unwrap();
        let text = || self.text(field, class);
        if let (true, Kind::Message(_)) = (field.is_map(), field.kind()) {
            let text = String::from_utf8(text()?).unwrap();
            return Some(Value::Map(HashMap::from([(MapKey::String(text.clone()), Value::String(text))])));
        }
        let one = match field.kind() {
            Kind::Message(inner) if inner.package_name() == "vault.v1" => Value::Message(self.message(&inner)),
            Kind::String => Value::String(String::from_utf8(text()?).unwrap()),
            Kind::Bytes => Value::Bytes(text()?.into()),
            _ => return None,
        };
        Some(if field.is_list() { Value::List(vec![one]) } else { one })
    }
}
