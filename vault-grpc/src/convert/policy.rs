//! Policy bundles as messages.

use vault_core::Error;
use vault_core::bundle::{BundleRef, BundleState, SignedBundle, StoredBundle};
use vault_core::id::Fingerprint;
use vault_proto::v1;

use super::timestamp;

/// A bundle's file; errors in it name the field or line there.
pub fn document(text: &str) -> Result<SignedBundle, Error> {
    if text.is_empty() { Err(Error::invalid("document", "is required")) } else { SignedBundle::from_document(text) }
}

/// A bundle by its version and digest.
pub fn reference(version: u64, sha256: &str) -> Result<BundleRef, Error> {
    if version == 0 {
        return Err(Error::invalid("version", "must be 1 or more"));
    }
    let rule = "must be 64 digits of lower-case hexadecimal, as an answer gave it";
    let digest = Fingerprint::parse(sha256).map_err(|_| Error::invalid("sha256", rule))?;
    Ok(BundleRef { version, digest })
}

/// The version of a page token.
pub fn version(token: &str) -> Result<u64, Error> {
    token.parse().map_err(|_| Error::invalid("page_token", "must be empty or as an answer gave it"))
}

/// Names the digest as the API does.
pub fn as_asked(error: Error) -> Error {
    match error {
        Error::Invalid { field, why } if field == "digest" => Error::invalid("sha256", why),
        other => other,
    }
}

/// A bundle as an answer.
pub fn show(bundle: &StoredBundle) -> v1::PolicyBundle {
    let state = match bundle.state {
        BundleState::Pending => v1::PolicyState::Pending,
        BundleState::Active => v1::PolicyState::Active,
        BundleState::Retired => v1::PolicyState::Retired,
        BundleState::Passed => v1::PolicyState::Passed,
    };
    v1::PolicyBundle {
        version: bundle.reference.version,
        sha256: bundle.reference.digest.to_string(),
        previous_sha256: bundle.previous.map(|digest| digest.to_string()).unwrap_or_default(),
        create_time: Some(timestamp(bundle.created)),
        not_before_time: Some(timestamp(bundle.not_before)),
        comment: bundle.comment.clone(),
        policies: bundle.policies,
        workloads: bundle.workloads,
        signers: bundle.signers.clone(),
        proposer: bundle.proposer.clone(),
        propose_time: Some(timestamp(bundle.proposed)),
        state: state.into(),
        activate_time: bundle.activated.map(timestamp),
        approval: bundle.approval.map(|approval| approval.to_string()).unwrap_or_default(),
    }
}
