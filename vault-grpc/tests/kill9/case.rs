//! One tenant, the calls that lead to a death, and what must be true afterwards.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;
use vault_client::{BatchItem, ClientError, Code, OperatorClient, Origin, Target, VaultClient};
use vault_core::audit::LogVerifier;
use vault_core::keys::ReceiptText;
use vault_proto::v1::{Approval, ApprovalState, Tenant, TenantState};

use crate::acknowledged::{DATASETS, decided};
use crate::served::Served;
use crate::site::Site;
use crate::steps::Calls;

const DATASET: &str = DATASETS[0];
/// The one who is shredded.
const GONE: &str = "mia";
/// More data keys than one step rewraps.
const MANY: usize = 300;

/// An envelope, and whose it is. It holds the subject's name.
#[derive(Clone)]
struct Held {
    subject: String,
    envelope: Bytes,
}

/// What a case's calls were told before the death.
#[derive(Default)]
pub(crate) struct Told {
    /// Calls answered.
    pub(crate) answers: u64,
    /// The version of the tenant key after a rotation.
    version: Option<u32>,
    /// Data keys were rotated.
    rotated: bool,
    asked: Option<Approval>,
    /// Approvals of it that were answered.
    votes: usize,
    executed: bool,
}

#[derive(Clone)]
pub(crate) struct Case {
    tenant: String,
    calls: Calls,
    pub(crate) point: String,
    pub(crate) nth: u64,
    /// Acknowledged, and not shredded.
    held: Vec<Held>,
    /// Acknowledged, and not to be opened any more.
    shredded: Vec<Held>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} for the {}th time, by {:?})", self.tenant, self.point, self.nth, self.calls)
    }
}

fn dead(error: &ClientError) {
    assert_eq!(error.origin(), Origin::Transport, "{error}");
}

impl Case {
    /// A tenant of its own, with a few envelopes.
    pub(crate) async fn new(served: &Served, tenant: &str, calls: Calls, (point, nth): (String, u64)) -> Self {
        let operator = &served.alice;
        operator.create_tenant(tenant, None, "test").await.unwrap();
        operator.create_dataset(tenant, DATASET, "pii", "eu", "test").await.unwrap();
        let mut case = Self { tenant: tenant.to_owned(), calls, point, nth, held: Vec::new(), shredded: Vec::new() };
        let mut subjects = vec![GONE.to_owned(), "noa".to_owned(), "per".to_owned()];
        if calls == Calls::RotateMany {
            subjects.extend((0..MANY).map(|n| format!("s-{n}")));
        }
        let client = &served.workloads[0];
        for batch in subjects.chunks(100) {
            let item = |name: &String| BatchItem::plaintext(DATASET, name.as_bytes()).subject(name);
            let sealed = client.batch_encrypt(tenant, "test", batch.iter().map(item).collect()).await.unwrap();
            for (subject, sealed) in batch.iter().zip(sealed) {
                case.held.push(Held { subject: subject.clone(), envelope: sealed.unwrap().envelope });
            }
        }
        case
    }

    fn target(&self, subject: &str) -> Target {
        Target::new(&self.tenant, DATASET, "test").subject(subject)
    }

    /// Makes the calls that end with the gateway's death, or lead to it.
    pub(crate) async fn call(&mut self, served: &Served) -> Told {
        let client = &served.workloads[0];
        let Served { alice, bob, .. } = served;
        let mut told = Told::default();
        let ended = match self.calls {
            Calls::Encrypt => self.encrypt(client, &mut told).await,
            Calls::Rotate | Calls::RotateMany => self.rotate(alice, &mut told).await,
            Calls::RotateUnderLoad => self.rotate_under_load(client, alice, &mut told).await,
            Calls::RotateDataKeys => self.rotate_data_keys(alice, &mut told).await,
            Calls::Rewrap => self.rewrap(client, &mut told).await,
            Calls::ShredSubject => self.shred((alice, bob), Some(GONE), &mut told).await,
            Calls::ShredTenant => self.shred((alice, bob), None, &mut told).await,
            Calls::Resume => self.resume(served, &mut told).await,
            Calls::Cancel => self.cancel((alice, bob), &mut told).await,
            Calls::Destruction => Ok(()),
        };
        if let Err(error) = ended {
            dead(&error);
        }
        told
    }

    async fn encrypt(&mut self, client: &VaultClient, told: &mut Told) -> Result<(), ClientError> {
        for n in 0..1000 {
            let subject = format!("new-{n}");
            let envelope = client.encrypt(&self.target(&subject), subject.as_bytes()).await?.envelope;
            told.answers += 1;
            self.held.push(Held { subject, envelope });
        }
        Ok(())
    }

    async fn rotate(&self, alice: &OperatorClient, told: &mut Told) -> Result<(), ClientError> {
        let rotated = alice.rotate_tenant_key(&self.tenant, "test").await?;
        told.answers += 1;
        told.version = Some(rotated.tenant.unwrap().active_key_version);
        Ok(())
    }

    async fn rotate_under_load(
        &mut self,
        client: &VaultClient,
        alice: &OperatorClient,
        told: &mut Told,
    ) -> Result<(), ClientError> {
        let mut lanes = JoinSet::new();
        for lane in 0..4 {
            let (client, target) = (client.clone(), Target::new(&self.tenant, DATASET, "test"));
            lanes.spawn(async move {
                let mut held = Vec::new();
                for n in 0..5000 {
                    let subject = format!("lane-{lane}-{n}");
                    match client.encrypt(&target.clone().subject(&subject), subject.as_bytes()).await {
                        Ok(sealed) => held.push(Held { subject, envelope: sealed.envelope }),
                        Err(error) => {
                            dead(&error);
                            break;
                        }
                    }
                }
                held
            });
        }
        let ended = async {
            for _ in 0..1000 {
                self.rotate(alice, told).await?;
            }
            Ok(())
        };
        let ended = ended.await;
        for held in lanes.join_all().await {
            told.answers += held.len() as u64;
            self.held.extend(held);
        }
        ended
    }

    async fn rotate_data_keys(&self, alice: &OperatorClient, told: &mut Told) -> Result<(), ClientError> {
        alice.rotate_data_keys(&self.tenant, None, "test").await?;
        told.answers += 1;
        told.rotated = true;
        Ok(())
    }

    async fn rewrap(&mut self, client: &VaultClient, told: &mut Told) -> Result<(), ClientError> {
        let Held { subject, envelope } = self.held[0].clone();
        let envelope = client.rewrap(&self.target(&subject), envelope).await?.envelope;
        told.answers += 1;
        self.held.push(Held { subject, envelope });
        Ok(())
    }

    async fn shred(
        &self,
        (alice, bob): (&OperatorClient, &OperatorClient),
        subject: Option<&str>,
        told: &mut Told,
    ) -> Result<(), ClientError> {
        let asked = self.ask(alice, subject).await?;
        told.answers += 1;
        told.asked = Some(asked.clone());
        let approved = bob.approve(&asked, subject, "test").await?;
        told.answers += 1;
        told.executed = approved.state() == ApprovalState::Executed;
        Ok(())
    }

    /// Suspended, until two others have approved that it is not.
    async fn resume(&self, served: &Served, told: &mut Told) -> Result<(), ClientError> {
        let Served { alice, bob, carol, .. } = served;
        alice.suspend_tenant(&self.tenant, "test").await?;
        told.answers += 1;
        let asked = alice.resume_tenant(&self.tenant, "test").await?;
        told.answers += 1;
        told.asked = Some(asked.clone());
        for other in [bob, carol] {
            let approval = other.approve(&asked, None, "test").await?;
            told.answers += 1;
            told.votes = approval.votes.len();
            told.executed = approval.state() == ApprovalState::Executed;
        }
        Ok(())
    }

    async fn cancel(
        &self,
        (alice, bob): (&OperatorClient, &OperatorClient),
        told: &mut Told,
    ) -> Result<(), ClientError> {
        let asked = self.ask(alice, None).await?;
        told.answers += 1;
        told.asked = Some(asked.clone());
        bob.cancel_approval(&asked.tenant, &asked.approval, "test").await?;
        told.answers += 1;
        told.executed = true;
        Ok(())
    }

    /// Votes that were answered count, what was carried out stays so, and what was not is approved to its end.
    async fn resume_ends(&self, served: &Served, told: &Told) {
        let asked = told.asked.clone().unwrap();
        let mut approval = decided(&served.alice, &asked).await.0;
        assert!(approval.votes.len() >= told.votes, "{self}: a vote was lost");
        for (other, who) in [(&served.bob, "bob"), (&served.carol, "carol")] {
            let suspended = served.alice.get_tenant(&self.tenant).await.unwrap().state() == TenantState::Suspended;
            assert_eq!(suspended, approval.state() == ApprovalState::Pending, "{self}");
            if suspended && !approval.votes.iter().any(|vote| vote.approver.ends_with(who)) {
                assert!(!told.executed, "{self}: it came back");
                approval = other.approve(&asked, None, "test").await.unwrap();
            }
        }
        assert_eq!((approval.state(), approval.votes.len()), (ApprovalState::Executed, 2), "{self}");
    }

    async fn cancel_ends(&self, (alice, bob): (&OperatorClient, &OperatorClient), told: &Told) {
        let asked = told.asked.clone().unwrap();
        let mut approval = decided(alice, &asked).await.0;
        if approval.state() == ApprovalState::Pending {
            assert!(!told.executed, "{self}: it came back");
            approval = bob.cancel_approval(&asked.tenant, &asked.approval, "test").await.unwrap();
        }
        assert_eq!(approval.state(), ApprovalState::Cancelled, "{self}");
        assert!(bob.approve(&asked, None, "test").await.is_err(), "{self}");
    }

    async fn ask(&self, alice: &OperatorClient, subject: Option<&str>) -> Result<Approval, ClientError> {
        match subject {
            Some(subject) => alice.shred_subject(&self.tenant, subject, "test").await,
            None => alice.shred_tenant(&self.tenant, "test").await,
        }
    }

    /// After the next start: what was told holds, and what was begun comes to its end, by itself or by calling again.
    pub(crate) async fn is_whole(&mut self, site: &Site, served: &Served, told: Told) {
        let client = &served.workloads[0];
        let Served { alice, bob, .. } = served;
        match self.calls {
            Calls::Encrypt | Calls::Destruction => {}
            Calls::Rotate | Calls::RotateMany | Calls::RotateUnderLoad => {
                self.is_there(served).await;
                let before = self.rotation_ended(alice).await;
                assert!(told.version.is_none_or(|version| before.active_key_version >= version), "{self}");
                let again = alice.rotate_tenant_key(&self.tenant, "test").await.unwrap().tenant.unwrap();
                assert_eq!(again.active_key_version, before.active_key_version + 1, "{self}");
                self.rotation_ended(alice).await;
            }
            Calls::RotateDataKeys => {
                let version = async |told: bool| {
                    let sealed = client.encrypt(&self.target("noa"), b"noa").await.unwrap();
                    assert!(!told || sealed.key_version > 1, "{self}");
                    sealed.key_version
                };
                let before = version(told.rotated).await;
                assert!(alice.rotate_data_keys(&self.tenant, None, "test").await.unwrap() > 0, "{self}");
                assert_eq!(version(true).await, before + 1, "{self}");
            }
            Calls::Rewrap => {
                alice.rotate_data_keys(&self.tenant, None, "test").await.unwrap();
                let first = self.held[0].clone();
                let rewrapped = client.rewrap(&self.target(&first.subject), first.envelope).await.unwrap();
                assert_eq!(rewrapped.key_version, 2, "{self}");
                self.held.push(Held { subject: first.subject, envelope: rewrapped.envelope });
            }
            Calls::Resume => self.resume_ends(served, &told).await,
            Calls::Cancel => self.cancel_ends((alice, bob), &told).await,
            Calls::ShredSubject => self.shred_ends(site, (alice, bob), Some(GONE), client, told).await,
            Calls::ShredTenant => self.shred_ends(site, (alice, bob), None, client, told).await,
        }
        self.is_there(served).await;
    }

    /// The tenant once no rotation of its key is under way: the gateway ends one unasked.
    async fn rotation_ended(&self, alice: &OperatorClient) -> Tenant {
        let begun = Instant::now();
        loop {
            let tenant = alice.get_tenant(&self.tenant).await.unwrap();
            if tenant.rotation.as_ref().is_none_or(|rotation| rotation.end_time.is_some()) {
                return tenant;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{self}: the rotation does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the shred of a subject has led away from the tenant key version above it.
    pub(crate) async fn rotated_away(&self, served: &Served) {
        let begun = Instant::now();
        while self.rotation_ended(&served.alice).await.active_key_version < 2 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{self}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn shred_ends(
        &mut self,
        site: &Site,
        (alice, bob): (&OperatorClient, &OperatorClient),
        subject: Option<&str>,
        client: &VaultClient,
        told: Told,
    ) {
        // What was asked for without an answer is there, or is not; then it is asked for again.
        let known = match told.asked {
            Some(asked) => Some(asked),
            None => pending_of(alice, &self.tenant).await,
        };
        let asked = match known {
            Some(asked) => asked,
            None => self.ask(alice, subject).await.unwrap(),
        };
        let mut approval = decided(alice, &asked).await.0;
        if approval.state() == ApprovalState::Pending {
            assert!(!told.executed, "{self}: it came back");
            self.opens(client).await;
            // A gateway that died a moment ago counts as one that serves, until its lease has ended.
            bob.approve(&asked, subject, "test").await.unwrap();
            approval = decided(alice, &asked).await.0;
        }
        assert_eq!(approval.state(), ApprovalState::Executed, "{self}");
        let receipt = ReceiptText::verify(&approval.receipt, &LogVerifier::parse(&site.verifier()).unwrap()).unwrap();
        assert_eq!(receipt.tenant.as_str(), self.tenant);
        let meant = |held: &Held| subject.is_none_or(|subject| held.subject == subject);
        let (gone, kept) = std::mem::take(&mut self.held).into_iter().partition(meant);
        self.shredded.extend::<Vec<_>>(gone);
        self.held = kept;
        assert_eq!(receipt.data_keys, self.shredded.len() as u64, "{self}: each had one data key");
    }

    /// Everything that is to open opens, and nothing that was shredded does.
    pub(crate) async fn is_there(&self, served: &Served) {
        let client = &served.workloads[0];
        self.opens(client).await;
        for Held { subject, envelope } in &self.shredded {
            let opened = client.decrypt(&self.target(subject), envelope.clone()).await;
            assert_eq!(opened.unwrap_err().code(), Code::InvalidArgument, "{self}: {subject}");
            let sealed = client.encrypt(&self.target(subject), b"again").await;
            assert_eq!(sealed.unwrap_err().code(), Code::FailedPrecondition, "{self}: {subject}");
        }
        let tenant = served.alice.get_tenant(&self.tenant).await.unwrap();
        let whole_tenant = self.calls == Calls::ShredTenant && !self.shredded.is_empty();
        assert_eq!(tenant.state() == TenantState::Destroyed, whole_tenant, "{self}");
    }

    async fn opens(&self, client: &VaultClient) {
        for batch in self.held.chunks(100) {
            let item = |held: &Held| BatchItem::envelope(DATASET, held.envelope.clone()).subject(&held.subject);
            let opened = client.batch_decrypt(&self.tenant, "test", batch.iter().map(item).collect()).await.unwrap();
            assert_eq!(opened.len(), batch.len());
            for (Held { subject, .. }, opened) in batch.iter().zip(opened) {
                let opened = opened.map_err(|error| format!("{self}: {subject}: {error}")).unwrap();
                assert_eq!(opened.plaintext.as_bytes(), subject.as_bytes(), "{self}");
            }
        }
    }
}

/// What waits for approval for a tenant: there is at most one.
async fn pending_of(operator: &OperatorClient, tenant: &str) -> Option<Approval> {
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let page = operator.list_approvals(1000, &token).await.unwrap();
        found.extend(page.approvals.into_iter().filter(|approval| approval.tenant == tenant));
        token = page.next_page_token;
        if token.is_empty() {
            assert!(found.len() < 2);
            return found.pop();
        }
    }
}
