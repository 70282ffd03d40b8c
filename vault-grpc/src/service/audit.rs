//! `AuditService`: on the control plane, the audit log of this gateway. Its entries hold no data.

use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};
use vault_core::Error;
use vault_core::fs::{Fs, OsFs};
use vault_proto::v1;
use vault_proto::v1::audit_service_server::AuditService;

use super::operator_of;
use super::tenants::{Control, answer, call};
use crate::convert::{self, audit};

/// Longest cosigned checkpoint that is read.
const MAX_NOTE: u64 = 64 * 1024;
/// Most that are: one for each witness.
const MAX_NOTES: usize = 100;

impl Control {
    /// What the witnesses cosigned last. What cannot be read is left out, as from a witness that has cosigned nothing.
    async fn cosigned(&self) -> Vec<String> {
        let dir = self.vault.audit().dir().join("cosigned");
        let read = move || {
            let notes = OsFs.list(&dir).unwrap_or_default();
            let notes = notes.iter().filter(|path| path.extension().is_some_and(|ending| ending == "note"));
            let fs: &dyn Fs = &OsFs;
            let text = |path: &std::path::PathBuf| fs.read(path, MAX_NOTE).ok().and_then(|b| String::from_utf8(b).ok());
            notes.filter_map(text).take(MAX_NOTES).collect()
        };
        spawn_blocking(read).await.unwrap_or_default()
    }
}

/// A size as a request has it: 0 is the newest.
const fn size(asked: u64) -> Option<u64> {
    if asked == 0 { None } else { Some(asked) }
}

#[tonic::async_trait]
impl AuditService for Control {
    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let reason = convert::reason(&request.reason)?;
            let checkpoint = self.vault.get_checkpoint(&call(&who, reason.as_ref())?).await?;
            let key = self.vault.audit().verifier();
            Ok(v1::GetCheckpointResponse {
                log: key.origin().to_owned(),
                verifier_key: key.vkey(),
                checkpoint,
                cosigned_checkpoints: self.cosigned().await,
            })
        };
        answer(done.await)
    }

    async fn list_entries(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Result<Response<v1::ListEntriesResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let reason = convert::reason(&request.reason)?;
            let limit = convert::page_size(request.page_size)?;
            let invalid = |_| Error::invalid("page_token", "must be empty or as an answer gave it");
            let token = convert::page_token(&request.page_token, |token| token.parse::<u64>().map_err(invalid))?;
            let from = token.unwrap_or(request.start_index);
            let found = self.vault.list_entries(&call(&who, reason.as_ref())?, from, limit).await?;
            let next = from.saturating_add(found.entries.len() as u64);
            let next_page_token = if next < found.size { next.to_string() } else { String::new() };
            let entries = found.entries.iter().map(|(entry, leaf)| audit::entry(entry, leaf)).collect();
            Ok(v1::ListEntriesResponse { entries, tree_size: found.size, next_page_token })
        };
        answer(done.await)
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<v1::GetInclusionProofRequest>,
    ) -> Result<Response<v1::GetInclusionProofResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let reason = convert::reason(&request.reason)?;
            let call = call(&who, reason.as_ref())?;
            let proof = self.vault.get_inclusion_proof(&call, request.index, size(request.tree_size)).await?;
            Ok(v1::GetInclusionProofResponse {
                tree_size: proof.size,
                leaf_hash: proof.leaf_hash.to_vec().into(),
                inclusion_path: proof.path.concat().into(),
            })
        };
        answer(done.await)
    }

    async fn get_consistency_proof(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<Response<v1::GetConsistencyProofResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let reason = convert::reason(&request.reason)?;
            let call = call(&who, reason.as_ref())?;
            let asked = size(request.tree_size);
            let (tree_size, proof) = self.vault.get_consistency_proof(&call, request.old_size, asked).await?;
            Ok(v1::GetConsistencyProofResponse { tree_size, consistency_proof: proof.concat().into() })
        };
        answer(done.await)
    }
}
