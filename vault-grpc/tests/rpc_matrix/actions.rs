//! Which action each RPC is decided as.

use std::collections::{BTreeMap, BTreeSet};

use vault_core::policy::BASELINE_SCHEMA;
use vault_proto::v1::Plane;
use vault_proto::{Rpc, rpcs};

/// RPC and action. One line for each RPC.
const ACTIONS: &[(&str, &str)] = &[
    ("ApprovalService.ListApprovals", "ListApprovals"),
    ("ApprovalService.GetApproval", "GetApproval"),
    ("ApprovalService.Approve", "Approve"),
    ("ApprovalService.CancelApproval", "CancelApproval"),
    ("ApprovalService.Reject", "Reject"),
    ("ConsentService.GrantConsent", "GrantConsent"),
    ("ConsentService.WithdrawConsent", "WithdrawConsent"),
    ("ConsentService.ListConsents", "ListConsents"),
    ("CryptoService.Encrypt", "Encrypt"),
    ("CryptoService.Decrypt", "Decrypt"),
    ("CryptoService.Rewrap", "Rewrap"),
    ("CryptoService.BatchEncrypt", "Encrypt"),
    ("CryptoService.BatchDecrypt", "Decrypt"),
    ("CryptoService.EncryptStream", "Encrypt"),
    ("CryptoService.DecryptStream", "Decrypt"),
    ("DatasetService.CreateDataset", "CreateDataset"),
    ("DatasetService.GetDataset", "GetDataset"),
    ("DatasetService.ListDatasets", "ListDatasets"),
    ("GrantService.RequestGrant", "RequestGrant"),
    ("GrantService.RevokeGrant", "RevokeGrant"),
    ("GrantService.ListGrants", "ListGrants"),
    ("PolicyService.ValidatePolicy", "ValidatePolicy"),
    ("PolicyService.ProposePolicy", "ProposePolicy"),
    ("PolicyService.ActivatePolicy", "ActivatePolicy"),
    ("PolicyService.GetPolicy", "GetPolicy"),
    ("PolicyService.ListPolicies", "ListPolicies"),
    ("CharterService.GetCharter", "GetCharter"),
    ("CharterService.ProposeCharter", "ProposeCharter"),
    ("ScorecardService.GetScorecard", "GetScorecard"),
    ("TenantService.CreateTenant", "CreateTenant"),
    ("TenantService.GetTenant", "GetTenant"),
    ("TenantService.ListTenants", "ListTenants"),
    ("TenantService.SuspendTenant", "SuspendTenant"),
    ("TenantService.ResumeTenant", "ResumeTenant"),
    ("TenantService.RotateTenantKey", "RotateTenantKey"),
    ("TenantService.RotateDataKeys", "RotateDataKeys"),
    ("TenantService.ShredSubject", "ShredSubject"),
    ("TenantService.ShredTenant", "ShredTenant"),
];

/// For example `CryptoService.Decrypt`.
pub(crate) fn name(rpc: &Rpc) -> String {
    format!("{}.{}", rpc.service.strip_prefix("vault.v1.").unwrap(), rpc.method)
}

/// The action that an RPC is decided as.
pub(crate) fn action(rpc: &Rpc) -> &'static str {
    let name = name(rpc);
    let found = ACTIONS.iter().find(|(of, _)| *of == name);
    found.unwrap_or_else(|| panic!("{name} is new: say in ACTIONS which action it is decided as")).1
}

/// Every action that the schema lets somebody request, with its group.
pub(crate) fn schema() -> BTreeMap<String, String> {
    let text: String =
        BASELINE_SCHEMA.text.lines().map(|line| line.split("//").next().unwrap().to_owned() + "\n").collect();
    let mut found = BTreeMap::new();
    for declared in text.split("action ").skip(1) {
        let Some((head, _)) = declared.split_once("appliesTo") else { continue };
        // A group is declared by itself and ends before.
        let Some((names, group)) = head.split_once(" in [").filter(|_| !head.contains(';')) else { continue };
        let group = group.split(']').next().unwrap().trim();
        found.extend(names.split(',').map(|name| (name.trim().to_owned(), group.to_owned())));
    }
    found
}

/// Actions of the schema that no RPC is decided as.
pub(crate) fn unused() -> Vec<String> {
    let used: BTreeSet<_> = rpcs().iter().map(action).collect();
    schema().into_keys().filter(|action| !used.contains(action.as_str())).collect()
}

/// Each RPC has an action that its plane is for, and each line an RPC.
pub(crate) fn every_rpc_has_an_action() {
    let schema = schema();
    // The scan of the schema's text has found what everybody knows.
    for (action, group) in [("Decrypt", "Release"), ("Rewrap", "Data"), ("ListGrants", "Control")] {
        assert_eq!(schema.get(action).map(String::as_str), Some(group), "{schema:?}");
    }
    for rpc in rpcs() {
        let group = schema.get(action(rpc)).unwrap_or_else(|| panic!("the schema has no action {}", action(rpc)));
        let plane = if group == "Control" { Plane::Control } else { Plane::Data };
        assert_eq!(plane, rpc.plane, "{} is decided as an action of another plane", name(rpc));
    }
    let names: BTreeSet<_> = rpcs().iter().map(name).collect();
    for (of, _) in ACTIONS {
        assert!(names.contains(*of), "{of} is no RPC any more");
    }
    assert_eq!(names.len(), ACTIONS.len(), "an RPC stands twice in ACTIONS");
}
