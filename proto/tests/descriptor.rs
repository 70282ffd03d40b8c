//! The rules of `vault_proto::classes` hold for the protocol, and the check fails when one of them is broken.
//!
//! The negative controls change the real `.proto` files in memory, compile them again and expect the same check to
//! name the change.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;

use prost_reflect::DescriptorPool;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use vault_proto::FILE_DESCRIPTOR_SET;
use vault_proto::classes::{self, Violation, check};
use vault_proto::v1::{DataClass, Plane};

const FILES: &[&str] = &[
    "vault/v1/options.proto",
    "vault/v1/access_log.proto",
    "vault/v1/approval.proto",
    "vault/v1/audit.proto",
    "vault/v1/charter.proto",
    "vault/v1/consent.proto",
    "vault/v1/crypto.proto",
    "vault/v1/tenant.proto",
    "vault/v1/dataset.proto",
    "vault/v1/grant.proto",
    "vault/v1/policy.proto",
    "vault/v1/receipt.proto",
    "vault/v1/scorecard.proto",
];

fn shipped() -> DescriptorPool {
    classes::pool(FILE_DESCRIPTOR_SET).unwrap()
}

/// The protocol's files with one piece of text replaced in one of them.
struct Edited {
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

impl FileResolver for Edited {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if !FILES.contains(&name) {
            return Err(protox::Error::file_not_found(name));
        }
        let mut source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        if name == self.file {
            assert!(source.contains(self.from), "the test's text is no longer in {name}");
            source = source.replacen(self.from, self.to, 1);
        }
        File::from_source(name, &source)
    }
}

/// The violations after replacing `from` by `to` in `file`.
fn after(file: &'static str, from: &'static str, to: &'static str) -> Vec<Violation> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Edited { file, from, to });
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_files(FILES).unwrap_or_else(|e| panic!("the edited files do not compile: {e}"));
    check(&classes::pool(&compiler.encode_file_descriptor_set()).unwrap())
}

#[test]
fn the_protocol_keeps_every_rule() {
    assert_eq!(check(&shipped()), []);
    // The control of the controls: editing nothing breaks nothing.
    assert_eq!(after("vault/v1/tenant.proto", "package", "package"), []);
}

#[test]
fn the_check_covers_the_real_protocol() {
    let pool = shipped();
    let names: BTreeSet<_> = pool.services().map(|s| s.name().to_owned()).collect();
    let expected = [
        "AccessLogService",
        "ApprovalService",
        "AuditService",
        "CharterService",
        "ConsentService",
        "CryptoService",
        "DatasetService",
        "GrantService",
        "PolicyService",
        "ScorecardService",
        "TenantService",
    ];
    let expected = expected.map(str::to_owned);
    assert_eq!(names, BTreeSet::from(expected), "a new service must be added here and to the gateway's plane tables");
    let fields =
        pool.all_messages().filter(|m| m.package_name() == "vault.v1").flat_map(|m| m.fields().collect::<Vec<_>>());
    let classes: BTreeSet<_> = fields.map(|f| classes::class_of(&f).unwrap()).collect();
    for class in
        [DataClass::Identifier, DataClass::Reason, DataClass::Plaintext, DataClass::Envelope, DataClass::Context]
    {
        assert!(classes.contains(&class), "{class:?} is read from no field, so the options were lost");
    }
}

#[test]
fn every_file_of_the_package_is_in_the_set() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("vault/v1");
    let on_disk: BTreeSet<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| format!("vault/v1/{}", e.unwrap().file_name().to_str().unwrap()))
        .collect();
    let in_set: BTreeSet<_> =
        shipped().files().map(|f| f.name().to_owned()).filter(|n| n.starts_with("vault/")).collect();
    assert_eq!(on_disk, in_set);
    assert_eq!(on_disk, FILES.iter().map(|f| (*f).to_owned()).collect());
}

#[test]
fn the_rpc_list_is_the_descriptor_set() {
    let mut expected = Vec::new();
    for service in shipped().services() {
        for method in service.methods() {
            expected.push((
                format!("/{}/{}", service.full_name(), method.name()),
                classes::plane_of(&service).unwrap(),
                method.input().full_name().to_owned(),
                method.output().full_name().to_owned(),
            ));
        }
    }
    let listed: Vec<_> = vault_proto::rpcs()
        .iter()
        .map(|r| (r.path.to_owned(), r.plane, r.request.to_owned(), r.response.to_owned()))
        .collect();
    assert_eq!(listed, expected);
    assert!(listed.iter().any(|r| r.1 == Plane::Data) && listed.iter().any(|r| r.1 == Plane::Control));
    for rpc in vault_proto::rpcs() {
        assert_eq!(rpc.path, format!("/{}/{}", rpc.service, rpc.method));
    }
}

#[test]
fn a_dropped_annotation_is_found() {
    let found =
        after("vault/v1/crypto.proto", "bytes plaintext = 6 [(data) = DATA_CLASS_PLAINTEXT];", "bytes plaintext = 6;");
    assert_eq!(found, [Violation::Unannotated { field: "vault.v1.EncryptRequest.plaintext".into() }]);

    let found = after(
        "vault/v1/crypto.proto",
        "map<string, string> context = 3 [(data) = DATA_CLASS_CONTEXT];",
        "map<string, string> context = 3;",
    );
    assert_eq!(found, [Violation::Unannotated { field: "vault.v1.BatchEncryptItem.context".into() }]);

    let found = after(
        "vault/v1/crypto.proto",
        "string reason = 2 [(data) = DATA_CLASS_METADATA];",
        "string reason = 2 [(data) = DATA_CLASS_UNSPECIFIED];",
    );
    assert_eq!(found, [Violation::Unannotated { field: "vault.v1.ItemError.reason".into() }]);

    let found = after("vault/v1/crypto.proto", "int32 code = 1;", "repeated int32 code = 1;");
    assert_eq!(found, [Violation::Unannotated { field: "vault.v1.ItemError.code".into() }]);
}

#[test]
fn plaintext_in_a_control_call_is_found() {
    for (from, to, path) in [
        (
            "uint64 rotated_data_keys = 1;",
            "uint64 rotated_data_keys = 1; bytes sample = 2 [(data) = DATA_CLASS_PLAINTEXT];",
            "vault.v1.RotateDataKeysResponse.sample",
        ),
        (
            "optional string dataset = 2 [(data) = DATA_CLASS_IDENTIFIER];",
            "optional string dataset = 2 [(data) = DATA_CLASS_PLAINTEXT];",
            "vault.v1.RotateDataKeysRequest.dataset",
        ),
    ] {
        let found = after("vault/v1/tenant.proto", from, to);
        let rpc = "vault.v1.TenantService.RotateDataKeys".into();
        assert_eq!(found, [Violation::Reaches { rpc, path: path.into(), class: DataClass::Plaintext }]);
    }
}

#[test]
fn every_class_that_is_not_harmless_is_found_however_deep() {
    for class in ["PLAINTEXT", "KEY", "TOKEN", "CONTEXT", "ENVELOPE", "SUBJECT"] {
        let to = format!(
            "uint64 rotated_data_keys = 1; map<string, Outer> more = 2 [(data) = DATA_CLASS_METADATA]; }}\n\
             message Outer {{ oneof choice {{ Inner inner = 1; int32 none = 2; }} }}\n\
             message Inner {{ Outer again = 1; repeated bytes deep = 2 [(data) = DATA_CLASS_{class}];"
        );
        let found = after("vault/v1/tenant.proto", "uint64 rotated_data_keys = 1;", to.leak());
        let class = DataClass::from_str_name(&format!("DATA_CLASS_{class}")).unwrap();
        let path = "vault.v1.RotateDataKeysResponse.more.inner.deep".into();
        assert_eq!(found, [Violation::Reaches { rpc: "vault.v1.TenantService.RotateDataKeys".into(), path, class }]);
    }
}

#[test]
fn a_person_is_named_by_the_callers_of_two_calls_and_by_no_answer() {
    let is_subject = |found: Vec<Violation>, path: &str| {
        assert!(!found.is_empty(), "{path}");
        for one in found {
            let ok = matches!(&one, Violation::Reaches { path: at, class: DataClass::Subject, .. } if at == path);
            assert!(ok, "{one:?}");
        }
    };
    let tenant = "vault/v1/tenant.proto";
    let to = "string tenant = 1 [(data) = DATA_CLASS_SUBJECT];";
    let from = "string tenant = 1 [(data) = DATA_CLASS_IDENTIFIER];";
    for (message, path) in [
        ("message ShredTenantRequest {\n  // Its name. Required.\n  ", "vault.v1.ShredTenantRequest.tenant"),
        ("message GetTenantRequest {\n  // Its name. Required.\n  ", "vault.v1.GetTenantRequest.tenant"),
    ] {
        is_subject(after(tenant, format!("{message}{from}").leak(), format!("{message}{to}").leak()), path);
    }
    // In the answer to a call that may name one in its request; and below its request.
    let from = "Approval approval = 1;";
    let to = "Approval approval = 1; string subject = 2 [(data) = DATA_CLASS_SUBJECT];";
    let message = "message ShredSubjectResponse {\n  // The approval that is pending.\n  ";
    let found = after(tenant, format!("{message}{from}").leak(), format!("{message}{to}").leak());
    is_subject(found, "vault.v1.ShredSubjectResponse.subject");
    let from = "message ShredSubjectRequest {";
    let to = "message Person { string subject = 1 [(data) = DATA_CLASS_SUBJECT]; }
        message ShredSubjectRequest { Person person = 9;";
    is_subject(after(tenant, from, to), "vault.v1.ShredSubjectRequest.person.subject");
}

#[test]
fn a_data_message_in_a_control_call_is_found() {
    let from = "AuditReceipt audit_receipt = 3;\n}\n\n// An envelope to move";
    let to = "AuditReceipt audit_receipt = 3; }
        service PreviewService { option (plane) = PLANE_CONTROL; rpc Preview(ItemError) returns (BatchDecryptResult); }
        // An envelope to move";
    let found = after("vault/v1/crypto.proto", from, to);
    let path = "vault.v1.BatchDecryptResult.opened.plaintext".into();
    let rpc = "vault.v1.PreviewService.Preview".into();
    assert_eq!(found, [Violation::Reaches { rpc, path, class: DataClass::Plaintext }]);
}

#[test]
fn untyped_content_is_found() {
    for (file, kind) in [("any", "Any"), ("struct", "Struct"), ("wrappers", "BytesValue"), ("struct", "Value")] {
        let from = "import \"google/protobuf/timestamp.proto\";";
        let to = format!(
            "{from} import \"google/protobuf/{file}.proto\"; message Bag {{ google.protobuf.{kind} bag = 1; }}"
        );
        let found = after("vault/v1/tenant.proto", from, to.leak());
        let message = format!("google.protobuf.{kind}");
        assert_eq!(found, [Violation::ForeignMessage { field: "vault.v1.Bag.bag".into(), message }]);
    }
}

#[test]
fn a_service_without_a_plane_is_found() {
    for to in ["", "option (plane) = PLANE_UNSPECIFIED;"] {
        let found = after("vault/v1/dataset.proto", "option (plane) = PLANE_CONTROL;", to);
        assert_eq!(found, [Violation::NoPlane { service: "vault.v1.DatasetService".into() }]);
    }
    // A data service declared on the control plane reaches what it must not, in all its calls.
    let found = after("vault/v1/crypto.proto", "option (plane) = PLANE_DATA;", "option (plane) = PLANE_CONTROL;");
    let rpcs: BTreeSet<_> = found
        .iter()
        .filter_map(|v| if let Violation::Reaches { rpc, .. } = v { Some(rpc.as_str()) } else { None })
        .collect();
    let all = vault_proto::rpcs().iter().filter(|rpc| rpc.service == "vault.v1.CryptoService").count();
    assert!(rpcs.len() == all && all >= 7, "{found:?}");
}

#[test]
fn a_set_without_the_options_proves_nothing() {
    assert_eq!(check(&DescriptorPool::new()), [Violation::NoOption { option: "vault.v1.data" }]);
}
