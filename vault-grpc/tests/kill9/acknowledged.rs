//! What the gateway acknowledged, and that all of it is there.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use vault_client::{AuditReceipt, BatchItem, Code, OperatorClient, Target, VaultClient};
use vault_proto::v1::{Approval, ApprovalState};

use crate::random::Random;
use crate::served::Served;

pub(crate) const DATASETS: [&str; 2] = ["customers", "rotated"];
/// The two workloads that `init` makes, each with its tenant.
pub(crate) const WORKLOADS: [(&str, &str); 2] = [("billing", "acme"), ("storefront", "globex")];
/// Of what earlier cycles acknowledged, so many envelopes are opened after each kill; all of them after the last.
const SAMPLE: usize = 100;

/// An acknowledged envelope, and what it holds.
#[derive(Clone)]
pub(crate) struct Write {
    pub(crate) workload: usize,
    pub(crate) dataset: &'static str,
    pub(crate) subject: String,
    pub(crate) envelope: Bytes,
}

/// A subject that one operator asked to have shredded, and whether another one's approval was answered as executed.
#[derive(Clone)]
pub(crate) struct Shred {
    pub(crate) subject: String,
    pub(crate) envelope: Bytes,
    pub(crate) asked: Approval,
    pub(crate) executed: bool,
}

/// How much of each there was at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    writes: usize,
    tenants: usize,
    shreds: usize,
}

/// What the gateway acknowledged.
#[derive(Default)]
pub(crate) struct Acknowledged {
    pub(crate) shreds: Mutex<Vec<Shred>>,
    pub(crate) writes: Mutex<Vec<Write>>,
    /// What each answer of the data plane showed of the audit log.
    pub(crate) receipts: Mutex<Vec<AuditReceipt>>,
    /// Tenants, and the dataset in each once that is acknowledged too.
    pub(crate) tenants: Mutex<Vec<(String, bool)>>,
    /// Versions of the tenant keys of [`WORKLOADS`].
    pub(crate) tenant_keys: Mutex<[u32; 2]>,
    calls: Mutex<u64>,
    called: Notify,
}

impl Acknowledged {
    pub(crate) fn call(&self) {
        *self.calls.lock().unwrap() += 1;
        self.called.notify_one();
    }

    pub(crate) fn calls(&self) -> u64 {
        *self.calls.lock().unwrap()
    }

    /// Waits until so many calls are answered.
    pub(crate) async fn reaches(&self, calls: u64) {
        while self.calls() < calls {
            self.called.notified().await;
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            writes: self.writes.lock().unwrap().len(),
            tenants: self.tenants.lock().unwrap().len(),
            shreds: self.shreds.lock().unwrap().len(),
        }
    }

    /// Opens what is new since a mark, and some of what is older.
    pub(crate) async fn is_there(&self, served: &Served, random: &mut Random, since: Mark) {
        let mut writes = self.writes.lock().unwrap().clone();
        let new = writes.split_off(since.writes);
        let old = (0..SAMPLE.min(writes.len())).map(|_| writes[random.below(writes.len())].clone());
        self.all_open(&served.workloads, new.into_iter().chain(old)).await;
        let operator = &served.alice;
        let tenants = self.tenants.lock().unwrap()[since.tenants..].to_vec();
        for (tenant, has_dataset) in tenants {
            assert_eq!(operator.get_tenant(&tenant).await.unwrap().tenant, tenant);
            self.call();
            if has_dataset {
                assert_eq!(operator.get_dataset(&tenant, DATASETS[0]).await.unwrap().dataset, DATASETS[0]);
                self.call();
            }
        }
        let shreds = self.shreds.lock().unwrap()[since.shreds..].to_vec();
        self.shreds_are_whole(served, &shreds).await;
        let versions = *self.tenant_keys.lock().unwrap();
        for ((_, tenant), version) in WORKLOADS.iter().zip(versions) {
            assert!(operator.get_tenant(tenant).await.unwrap().active_key_version >= version);
            self.call();
        }
    }

    /// Opens everything; answers how many subjects are shredded.
    pub(crate) async fn all_is_there(&self, served: &Served) -> usize {
        let writes = self.writes.lock().unwrap().clone();
        self.all_open(&served.workloads, writes.into_iter()).await;
        let shreds = self.shreds.lock().unwrap().clone();
        self.shreds_are_whole(served, &shreds).await
    }

    /// Opens envelopes, in batches.
    async fn all_open(&self, clients: &[VaultClient], writes: impl Iterator<Item = Write>) {
        let mut of_workload = [Vec::new(), Vec::new()];
        writes.for_each(|write| of_workload[write.workload].push(write));
        for (mine, (client, (_, tenant))) in of_workload.iter().zip(clients.iter().zip(WORKLOADS)) {
            for batch in mine.chunks(100) {
                let item = |w: &Write| BatchItem::envelope(w.dataset, w.envelope.clone()).subject(&w.subject);
                let items = batch.iter().map(item).collect();
                let opened = client.batch_decrypt(tenant, "test", items).await.unwrap();
                self.call();
                assert_eq!(opened.len(), batch.len());
                for (write, opened) in batch.iter().zip(opened) {
                    let opened = opened.map_err(|error| format!("{}: {error}", write.subject)).unwrap();
                    assert_eq!(opened.plaintext.as_bytes(), write.subject.as_bytes());
                }
            }
        }
    }

    /// What was shredded is gone, also if the gateway was killed in the middle; what nobody approved is there. Answers how
    /// many are gone: more than were answered, since on a shared store an approval waits for the one that was killed.
    async fn shreds_are_whole(&self, served: &Served, shreds: &[Shred]) -> usize {
        let mut gone = 0;
        let client = &served.workloads[0];
        let tenant = WORKLOADS[0].1;
        for shred in shreds {
            let (state, reads) = decided(&served.alice, &shred.asked).await;
            (0..reads).for_each(|_| self.call());
            let target = Target::new(tenant, DATASETS[0], "test").subject(&shred.subject);
            let opened = client.decrypt(&target, shred.envelope.clone()).await;
            self.call();
            match state.state() {
                ApprovalState::Executed => {
                    gone += 1;
                    assert_eq!(opened.unwrap_err().code(), Code::InvalidArgument, "{}", shred.subject);
                    let sealed = client.encrypt(&target, b"again").await;
                    assert_eq!(sealed.unwrap_err().code(), Code::FailedPrecondition, "{}", shred.subject);
                }
                other => {
                    assert_eq!(other, ApprovalState::Pending);
                    assert!(!shred.executed, "{} came back", shred.subject);
                    assert_eq!(opened.unwrap().plaintext.as_bytes(), shred.subject.as_bytes());
                }
            }
        }
        gone
    }
}

/// An approval once nothing more becomes of it by itself, and how often it was read: what was approved before a death,
/// the gateway finishes unasked.
pub(crate) async fn decided(operator: &OperatorClient, asked: &Approval) -> (Approval, u64) {
    let begun = Instant::now();
    for reads in 1.. {
        let approval = operator.get_approval(&asked.tenant, &asked.approval).await.unwrap();
        if approval.state() != ApprovalState::Approved {
            return (approval, reads);
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the gateway does not finish what was approved");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!()
}
