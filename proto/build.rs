//! Compiles `vault/v1/*.proto` without protoc, and writes beside the generated messages what follows from their
//! classes: redacting `Debug` implementations, the list of RPCs, and the descriptor set with its options.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost_reflect::{
    DescriptorPool, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor, Value,
};

const PACKAGE: &str = "vault.v1";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo names no manifest directory")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names no output directory")?);
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=vault");
    let files = proto_files(&root)?;

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let pool = compiler.descriptor_pool();
    let with_comments = compiler.file_descriptor_set();
    // The published set: with the options, without comments and positions.
    compiler.include_source_info(false);
    fs::write(out.join("descriptor_set.bin"), compiler.encode_file_descriptor_set())?;

    let messages: Vec<_> = pool.all_messages().filter(|m| m.package_name() == PACKAGE && !m.is_map_entry()).collect();
    tonic_prost_build::configure()
        .bytes(format!(".{PACKAGE}"))
        .skip_debug(messages.iter().map(|m| format!(".{}", m.full_name())))
        .emit_rerun_if_changed(false)
        .compile_fds(with_comments)?;

    fs::write(out.join("vault.v1.debug.rs"), debug_impls(&pool, &messages)?)?;
    fs::write(out.join("vault.v1.rpcs.rs"), rpcs(&pool)?)?;
    Ok(())
}

/// Every `.proto` file of the package, so that a new one cannot be forgotten.
fn proto_files(root: &Path) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root.join("vault/v1"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `Debug` for every message and oneof, printing only what the classes allow to be logged.
fn debug_impls(pool: &DescriptorPool, messages: &[MessageDescriptor]) -> Outcome<String> {
    let data = extension(pool, "vault.v1.data")?;
    let mut code = String::new();
    let mut arms = String::new();
    for message in messages {
        let name = message.name();
        if message.parent_message().is_some() {
            return Err(format!("declare {} at the top level of its file, not inside another message", name).into());
        }
        let mut lines = String::new();
        for field in message.fields().filter(|f| real_oneof(f).is_none()) {
            let shown = shown(&field, &data, &format!("self.{}", field.name()));
            writeln!(lines, "            .field(\"{}\", &{shown})", field.name())?;
        }
        for oneof in message.oneofs().filter(|o| !o.is_synthetic()) {
            writeln!(lines, "            .field(\"{0}\", &self.{0})", oneof.name())?;
            let path = format!("{}::{}", snake(name), camel(oneof.name()));
            let mut variants = String::new();
            for field in oneof.fields() {
                let variant = camel(field.name());
                // Only messages print themselves redacted; any other variant stays hidden.
                let (binding, shown) =
                    if is_ours(&field) { ("value", "value") } else { ("_", "crate::redact::Hidden") };
                writeln!(
                    variants,
                    "            Self::{variant}({binding}) => f.debug_tuple(\"{variant}\").field(&{shown}).finish(),"
                )?;
            }
            code.push_str(&implementation(&path, &format!("        match self {{\n{variants}        }}\n")));
        }
        let body = format!("        f.debug_struct(\"{name}\")\n{lines}            .finish()\n");
        code.push_str(&implementation(name, &body));
        writeln!(arms, "        \"{}\" => Some(print::<{name}>(encoded)),", message.full_name())?;
    }
    write!(
        code,
        "pub(crate) fn redacted(name: &str, encoded: &[u8]) -> Option<Result<String, ::prost::DecodeError>> {{\n    \
         fn print<M: ::prost::Message + Default + ::core::fmt::Debug>(encoded: &[u8]) -> Result<String, \
         ::prost::DecodeError> {{\n        M::decode(encoded).map(|message| format!(\"{{message:?}}\"))\n    }}\n    \
         match name {{\n{arms}        _ => None,\n    }}\n}}\n"
    )?;
    Ok(code)
}

fn implementation(path: &str, body: &str) -> String {
    format!(
        "impl ::core::fmt::Debug for {path} {{\n    \
         fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{\n{body}    }}\n}}\n"
    )
}

/// The expression that prints a field; `Hidden` unless its type or class says that it may be shown.
fn shown(field: &FieldDescriptor, data: &ExtensionDescriptor, place: &str) -> String {
    let hidden = "crate::redact::Hidden".to_owned();
    if field.is_map() {
        return hidden;
    }
    match field.kind() {
        Kind::Message(_) if is_ours(field) => place.to_owned(),
        Kind::Message(_) => hidden,
        _ if field.is_list() => hidden,
        Kind::Enum(_) => format!("{place}()"),
        Kind::Bytes => hidden,
        Kind::String => {
            let wrapper = match class(field, data).as_deref() {
                Some("DATA_CLASS_IDENTIFIER") => "crate::redact::Identifier",
                Some("DATA_CLASS_METADATA") => "crate::redact::Metadata",
                _ => return hidden,
            };
            if field.supports_presence() {
                format!("{place}.as_deref().map({wrapper})")
            } else {
                format!("{wrapper}(&{place})")
            }
        }
        _ => place.to_owned(),
    }
}

/// Messages that redact themselves, and the well-known ones that hold only numbers.
fn is_ours(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(m) if m.package_name() == PACKAGE
        || matches!(m.full_name(), "google.protobuf.Timestamp" | "google.protobuf.Duration"))
}

fn real_oneof(field: &FieldDescriptor) -> Option<()> {
    field.containing_oneof().filter(|o| !o.is_synthetic()).map(|_| ())
}

/// The RPCs as a constant, so that tests and servers need not decode the descriptor set.
fn rpcs(pool: &DescriptorPool) -> Outcome<String> {
    let plane = extension(pool, "vault.v1.plane")?;
    let mut code = String::from("&[\n");
    for service in pool.services().filter(|s| s.package_name() == PACKAGE) {
        let variant = match plane_name(&service, &plane).as_deref() {
            Some("PLANE_DATA") => "Data",
            Some("PLANE_CONTROL") => "Control",
            _ => return Err(format!("{} declares no plane; set option (plane)", service.full_name()).into()),
        };
        for method in service.methods() {
            writeln!(
                code,
                "    Rpc {{ service: \"{0}\", method: \"{1}\", plane: Plane::{variant}, path: \"/{0}/{1}\", \
                 request: \"{2}\", response: \"{3}\" }},",
                service.full_name(),
                method.name(),
                method.input().full_name(),
                method.output().full_name()
            )?;
        }
    }
    code.push(']');
    Ok(code)
}

fn extension(pool: &DescriptorPool, name: &str) -> Outcome<ExtensionDescriptor> {
    Ok(pool.get_extension_by_name(name).ok_or_else(|| format!("options.proto declares no extension {name}"))?)
}

fn class(field: &FieldDescriptor, data: &ExtensionDescriptor) -> Option<String> {
    enum_name(&field.options().get_extension(data), data)
}

fn plane_name(service: &ServiceDescriptor, plane: &ExtensionDescriptor) -> Option<String> {
    enum_name(&service.options().get_extension(plane), plane)
}

fn enum_name(value: &Value, extension: &ExtensionDescriptor) -> Option<String> {
    match (value, extension.kind()) {
        (Value::EnumNumber(n), Kind::Enum(e)) => e.get_value(*n).map(|v| v.name().to_owned()),
        _ => None,
    }
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn camel(name: &str) -> String {
    name.split('_')
        .map(|part| {
            let mut chars = part.chars();
            chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
        })
        .collect()
}
