//! Carrying out what shreds, step by step, up to the signed receipt.

use std::time::Duration;

use super::Vault;
use crate::audit::SystemEvent;
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::id::TenantId;
use crate::keys::receipt::{self, ReceiptText};
use crate::keys::{Everywhere, Shredded, Turn};

impl Vault {
    /// One step of a shred; its end is in the audit log before its receipt is signed and written down. The last waits up
    /// to `patience` for other gateways, and is idle while there is one to wait for.
    pub(super) async fn shred_turn(&self, tenant: &TenantId, patience: Duration) -> Result<Turn<()>, Error> {
        Ok(match self.keys.shred_turn(tenant).await? {
            Turn::More => Turn::More,
            Turn::Idle => Turn::Idle,
            Turn::Ready(done) => {
                let Some(everywhere) = self.keys.evicted_everywhere(tenant, done.approval, patience).await? else {
                    return Ok(Turn::Idle);
                };
                let event =
                    SystemEvent::Shredded { approval: done.approval, data_keys: done.keys, version: done.under };
                let entry = around(Step::ShredEntry, self.audit.system_of(tenant, event)).await?;
                let receipt = self.audit.sign_note(&self.receipt(tenant, &done, everywhere, entry.index).text())?;
                self.keys.end_shred(tenant, &done, &receipt).await?;
                Turn::Ready(())
            }
        })
    }

    fn receipt(&self, tenant: &TenantId, done: &Shredded, everywhere: Everywhere, audit_entry: u64) -> ReceiptText {
        ReceiptText {
            approval: done.approval,
            tenant: tenant.clone(),
            subject: done.pseudonym.map(|pseudonym| receipt::hex(&pseudonym.0)),
            decided: receipt::time(done.decided),
            data_keys: done.keys,
            digest: receipt::hex(&done.digest),
            listed: done.listed.iter().map(receipt::listed).collect(),
            tenant_key_version: done.under.0,
            due: done.due.map(receipt::time),
            evicted: everywhere.evicted,
            lease_ended: everywhere.lease_ended,
            audit_entry,
            instance: self.keys.instance().to_owned(),
        }
    }
}
