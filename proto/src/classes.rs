//! The rules that every descriptor set of the protocol keeps, as a check that tests and releases share.
//!
//! 1. Every string, bytes and map field of every message, and every repeated number (bytes in disguise), names its
//!    class with `(vault.v1.data)`.
//! 2. Fields hold only scalars, our own messages, and the few foreign ones of [`FOREIGN`]: nothing like
//!    `google.protobuf.Any` or `Struct`, whose content no class describes. No message of ours can be extended.
//! 3. Every service names its plane with `(vault.v1.plane)`.
//! 4. From no request and no response of a control-plane call can a field be reached, however deeply nested, whose
//!    class is not in [`HARMLESS`]; but the requests of [`NAME_A_SUBJECT`] may name a person in a field of their own.

use std::collections::BTreeSet;
use std::fmt;

use prost_reflect::{
    DescriptorError, DescriptorPool, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor,
    Value,
};

use crate::v1::{DataClass, Plane};

/// The classes that a control-plane call may carry. Everything that is not listed is refused.
pub const HARMLESS: &[DataClass] = &[DataClass::Identifier, DataClass::Reason, DataClass::Metadata];

/// The control-plane calls whose caller says which person they are about. No answer of the control plane does.
pub const NAME_A_SUBJECT: &[&str] = &["vault.v1.TenantService.ShredSubject", "vault.v1.ApprovalService.Approve"];

/// The foreign messages that fields may hold: they consist of numbers that say what time it is.
pub const FOREIGN: &[&str] = &["google.protobuf.Timestamp", "google.protobuf.Duration"];

const WELL_KNOWN: &str = "google.protobuf";

/// A rule that a descriptor set breaks, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// A field that needs a class has none.
    Unannotated {
        /// The full name of the field.
        field: String,
    },
    /// A field holds a message whose content no class describes.
    ForeignMessage {
        /// The full name of the field.
        field: String,
        /// The full name of the message.
        message: String,
    },
    /// A message of the protocol is open to extension fields, which no walk of its fields would meet.
    Extensible {
        /// The full name of the message.
        message: String,
    },
    /// A service belongs to no plane.
    NoPlane {
        /// The full name of the service.
        service: String,
    },
    /// A control-plane call reaches a field whose class is not harmless.
    Reaches {
        /// The full name of the call.
        rpc: String,
        /// The way from the request or response message to the field.
        path: String,
        /// The class of the field.
        class: DataClass,
    },
    /// The set does not declare what the check reads; nothing can be said about it.
    NoOption {
        /// The full name of the missing option.
        option: &'static str,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unannotated { field } => write!(f, "{field} carries no data class; add (vault.v1.data)"),
            Self::ForeignMessage { field, message } => write!(f, "{field} holds {message}, which has no data classes"),
            Self::Extensible { message } => write!(f, "{message} can be extended; remove the extension"),
            Self::NoPlane { service } => write!(f, "{service} declares no plane; add option (vault.v1.plane)"),
            Self::Reaches { rpc, path, class } => {
                write!(f, "control-plane call {rpc} reaches {path}, of class {}", class.as_str_name())
            }
            Self::NoOption { option } => write!(f, "the descriptor set does not declare ({option})"),
        }
    }
}

impl std::error::Error for Violation {}

/// Decodes an encoded `FileDescriptorSet`, keeping its custom options.
///
/// # Errors
/// If the bytes are no descriptor set, or one that refers to what it does not contain.
pub fn pool(descriptor_set: &[u8]) -> Result<DescriptorPool, DescriptorError> {
    DescriptorPool::decode(descriptor_set)
}

/// Checks all rules of this module; returns every violation, so none if the set keeps them.
pub fn check(pool: &DescriptorPool) -> Vec<Violation> {
    let options = match Options::of(pool) {
        Ok(options) => options,
        Err(missing) => return vec![missing],
    };
    let mut found = Vec::new();
    for message in pool.all_messages().filter(|m| m.package_name() != WELL_KNOWN && !m.is_map_entry()) {
        check_message(&message, &options, &mut found);
    }
    for service in pool.services() {
        match options.plane(&service) {
            Plane::Unspecified => found.push(Violation::NoPlane { service: service.full_name().to_owned() }),
            Plane::Control => check_control(&service, &options, &mut found),
            Plane::Data => {}
        }
    }
    found
}

/// The class that a field names, [`DataClass::Unspecified`] if it names none; `None` if the pool declares no classes.
pub fn class_of(field: &FieldDescriptor) -> Option<DataClass> {
    Options::of(field.parent_pool()).ok().map(|options| options.class(field))
}

/// The plane that a service names, [`Plane::Unspecified`] if it names none; `None` if the pool declares no planes.
pub fn plane_of(service: &ServiceDescriptor) -> Option<Plane> {
    Options::of(service.parent_pool()).ok().map(|options| options.plane(service))
}

struct Options {
    data: ExtensionDescriptor,
    plane: ExtensionDescriptor,
}

impl Options {
    fn of(pool: &DescriptorPool) -> Result<Self, Violation> {
        let find = |option| pool.get_extension_by_name(option).ok_or(Violation::NoOption { option });
        Ok(Self { data: find("vault.v1.data")?, plane: find("vault.v1.plane")? })
    }

    fn class(&self, field: &FieldDescriptor) -> DataClass {
        number(&field.options().get_extension(&self.data))
            .and_then(|n| DataClass::try_from(n).ok())
            .unwrap_or(DataClass::Unspecified)
    }

    fn plane(&self, service: &ServiceDescriptor) -> Plane {
        number(&service.options().get_extension(&self.plane))
            .and_then(|n| Plane::try_from(n).ok())
            .unwrap_or(Plane::Unspecified)
    }
}

fn number(value: &Value) -> Option<i32> {
    if let Value::EnumNumber(n) = value { Some(*n) } else { None }
}

fn check_message(message: &MessageDescriptor, options: &Options, found: &mut Vec<Violation>) {
    if message.extensions().next().is_some() || message.extension_ranges().next().is_some() {
        found.push(Violation::Extensible { message: message.full_name().to_owned() });
    }
    for field in message.fields() {
        if needs_class(&field) && options.class(&field) == DataClass::Unspecified {
            found.push(Violation::Unannotated { field: field.full_name().to_owned() });
        }
        if let Some(held) = held_message(&field)
            && held.package_name() == WELL_KNOWN
            && !FOREIGN.contains(&held.full_name())
        {
            found.push(Violation::ForeignMessage {
                field: field.full_name().to_owned(),
                message: held.full_name().to_owned(),
            });
        }
    }
}

fn needs_class(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::String | Kind::Bytes => true,
        Kind::Message(_) => field.is_map(),
        Kind::Enum(_) | Kind::Bool => false,
        _ => field.is_list(),
    }
}

/// The message a field holds; for a map, the one its values are.
fn held_message(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(entry) if entry.is_map_entry() => match entry.map_entry_value_field().kind() {
            Kind::Message(value) => Some(value),
            _ => None,
        },
        Kind::Message(message) => Some(message),
        _ => None,
    }
}

fn check_control(service: &ServiceDescriptor, options: &Options, found: &mut Vec<Violation>) {
    for method in service.methods() {
        for (top, is_request) in [(method.input(), true), (method.output(), false)] {
            let names_a_subject = is_request && NAME_A_SUBJECT.contains(&method.full_name());
            let request = top.full_name().to_owned();
            let mut seen = BTreeSet::new();
            let mut open = vec![(top.full_name().to_owned(), top)];
            while let Some((path, message)) = open.pop() {
                if !seen.insert(message.full_name().to_owned()) {
                    continue;
                }
                if message.package_name() == WELL_KNOWN {
                    if !FOREIGN.contains(&message.full_name()) {
                        found.push(Violation::ForeignMessage { field: path, message: message.full_name().to_owned() });
                    }
                    continue;
                }
                for field in message.fields() {
                    let path = format!("{path}.{}", field.name());
                    let class = options.class(&field);
                    // A class on any field counts, whatever its type; one that is missing is reported here too.
                    let named =
                        names_a_subject && class == DataClass::Subject && field.parent_message().full_name() == request;
                    let counts = needs_class(&field) || class != DataClass::Unspecified;
                    if counts && !HARMLESS.contains(&class) && !named {
                        let rpc = method.full_name().to_owned();
                        found.push(Violation::Reaches { rpc, path: path.clone(), class });
                    }
                    if let Some(held) = held_message(&field) {
                        open.push((path, held));
                    }
                }
            }
        }
    }
}
