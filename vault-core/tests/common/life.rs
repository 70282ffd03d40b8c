//! A vault with two operators and a workload, the whole life of some keys in it, and what must be true after a death.

use std::path::Path;
use std::sync::Arc;

use pollster::block_on;
use vault_core::audit::LogVerifier;
use vault_core::fs::{Fs, OsFs};
use vault_core::id::{Reason, Subject};
use vault_core::keys::{Approval, ApprovalState, CacheSettings, ReceiptText, Seen};
use vault_core::kms::{LocalRoot, RootKey, Roots};
use vault_core::principal::{Operator, Workload};
use vault_core::store::{EmbeddedStore, Store, Table};
use vault_core::time::{Clock as _, ManualClock, Timestamp};
use vault_core::vault::{ApprovalSettings, DecryptRequest, EncryptRequest, LifecycleSettings, Target};
use vault_core::{Error, Vault};

use crate::fixture::{People, because, call, context, dataset, open_vault_on, target, tenant};

const BILLING: &str = "/ns/shop/sa/billing";
pub(crate) const MINUTE: u64 = 60_000;

pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) billing: Workload,
    pub(crate) alice: Operator,
    pub(crate) bob: Operator,
    pub(crate) reason: Reason,
    /// How long a shred that is approved waits, in milliseconds.
    pub(crate) delay: u64,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let people = People::new();
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(ManualClock::new(Timestamp(1_907_755_200_000))),
            billing: people.workload(BILLING),
            alice: people.operator("alice"),
            bob: people.operator("bob"),
            reason: because(),
            delay: 0,
        }
    }

    pub(crate) fn store(&self) -> Arc<EmbeddedStore> {
        Arc::new(EmbeddedStore::open(Arc::new(OsFs), &self.dir.path().join("store.redb")).unwrap())
    }

    pub(crate) fn root(dir: &Path) -> Arc<dyn RootKey> {
        let path = dir.join("root.key");
        Arc::new(
            if OsFs.exists(&path) { LocalRoot::open(&OsFs, &path) } else { LocalRoot::create(&OsFs, &path) }.unwrap(),
        )
    }

    pub(crate) fn open(&self, store: Arc<dyn Store>) -> Vault {
        let roots = Roots::single(Self::root(self.dir.path())).unwrap();
        let clock = Arc::clone(&self.clock) as _;
        let lifecycle = LifecycleSettings {
            approval_millis: 10 * MINUTE,
            destroy_after_millis: 5 * MINUTE,
            ..LifecycleSettings::default()
        };
        let approvals = ApprovalSettings { shred_delay_millis: self.delay, ..ApprovalSettings::default() };
        open_vault_on(store, Arc::new(OsFs), self.dir.path(), clock, CacheSettings::default(), roots)
            .with_lifecycle(lifecycle)
            .with_approvals(approvals)
    }

    pub(crate) fn set_up(&self, vault: &Vault) {
        for id in ["acme", "globex"] {
            block_on(vault.create_tenant(&call(&self.alice, &self.reason), &tenant(id))).unwrap();
            for name in ["customers", "orders"] {
                let about = (&tenant(id), &dataset(name));
                block_on(vault.create_dataset(&call(&self.alice, &self.reason), about, None, None)).unwrap();
            }
        }
    }

    pub(crate) fn encrypt(&self, vault: &Vault, target: &Target) -> Result<Vec<u8>, Error> {
        let request = EncryptRequest { target, context: &context(), plaintext: b"DE89 3704" };
        block_on(vault.encrypt(&self.billing, request)).map(|sealed| sealed.envelope)
    }

    pub(crate) fn decrypt(&self, vault: &Vault, target: &Target, envelope: &[u8]) -> Result<(), Error> {
        let request = DecryptRequest { target, context: &context(), envelope };
        let opened = block_on(vault.decrypt(&self.billing, request))?;
        assert_eq!(opened.plaintext.expose(), b"DE89 3704");
        Ok(())
    }

    pub(crate) fn ask(&self, vault: &Vault, subject: Option<&str>) -> Result<Approval, Error> {
        let (acme, call) = (tenant("acme"), call(&self.alice, &self.reason));
        match subject {
            Some(subject) => block_on(vault.shred_subject(&call, &acme, &Subject::parse(subject).unwrap())),
            None => block_on(vault.shred_tenant(&call, &acme)),
        }
    }

    pub(crate) fn approve(&self, vault: &Vault, who: &Operator, asked: &Approval) -> Result<Approval, Error> {
        let about = (&tenant("acme"), asked.id);
        block_on(vault.approve(&call(who, &self.reason), about, seen(asked)))
    }

    pub(crate) fn shred(&self, vault: &Vault, subject: Option<&str>) -> Approval {
        let asked = self.ask(vault, subject).unwrap();
        self.approve(vault, &self.bob, &asked).unwrap()
    }

    pub(crate) fn verifier(&self) -> LogVerifier {
        LogVerifier::parse(&std::fs::read_to_string(self.dir.path().join("audit/log.pub")).unwrap()).unwrap()
    }
}

pub(crate) fn seen(asked: &Approval) -> Seen<'_> {
    Seen { request_sha256: asked.request_sha256, subject: asked.ordered.subject() }
}

pub(crate) fn of(subject: Option<&str>) -> Target {
    target("acme", "customers", subject)
}

/// Rows of a table as JSON text.
pub(crate) fn rows(store: &dyn Store, table: Table) -> Vec<serde_json::Value> {
    let found = block_on(store.scan(table, b"", None, usize::MAX)).unwrap();
    found.iter().map(|scanned| serde_json::from_slice(&scanned.row.value).unwrap()).collect()
}

/// A life that may end at any moment: what was there at its beginning.
pub(crate) struct Life {
    scene: Scene,
    /// The subject that is to be shredded, or the whole tenant.
    subject: Option<&'static str>,
    targets: [Target; 3],
    envelopes: [Vec<u8>; 3],
    asked: Approval,
}

impl Life {
    /// Sets the scene, up to a shred that waits for its approval.
    pub(crate) fn begin(scene: Scene, vault: &Vault, subject: Option<&'static str>) -> Self {
        scene.set_up(vault);
        let targets = [of(Some("mia")), of(Some("noa")), target("globex", "customers", None)];
        let envelopes = targets.each_ref().map(|target| scene.encrypt(vault, target).unwrap());
        let asked = scene.ask(vault, subject).unwrap();
        Self { scene, subject, targets, envelopes, asked }
    }

    /// Rotates, shreds, and lets time pass until all is destroyed. Answers whether the shred was acknowledged, and
    /// whether all went well.
    pub(crate) fn run(&self, vault: &Vault) -> (bool, Result<(), Error>) {
        let mut acknowledged = false;
        let scene = &self.scene;
        let result = (|| {
            block_on(vault.rotate_tenant_key(&call(&scene.alice, &scene.reason), &tenant("acme"), None))?;
            acknowledged = scene.approve(vault, &scene.bob, &self.asked)?.state == ApprovalState::Executed;
            for _ in 0..3 {
                let tended = block_on(vault.tend(|| true))?;
                if tended.failed > 0 {
                    return Err(Error::NotFound("way to go on"));
                }
                scene.clock.advance_millis(3 * MINUTE);
            }
            Ok(())
        })();
        (acknowledged, result)
    }

    fn found(&self, vault: &Vault) -> Approval {
        let about = call(&self.scene.alice, &self.scene.reason);
        block_on(vault.get_approval(&about, &tenant("acme"), self.asked.id)).unwrap()
    }

    /// What the next process must find, and bring to its end.
    pub(crate) fn afterwards(&self, store: &Arc<EmbeddedStore>, acknowledged: bool, when: &str) {
        let scene = &self.scene;
        let vault = scene.open(Arc::clone(store) as _);
        let found = self.found(&vault).state;
        assert!(!acknowledged || found == ApprovalState::Executed, "{when}: an acknowledged shred came back");
        let begun = found != ApprovalState::Pending;
        // It keeps to its time, whoever carries it out.
        if found == ApprovalState::Scheduled {
            let before_its_time = self.found(&vault).scheduled.unwrap() > scene.clock.now();
            block_on(vault.tend(|| true)).unwrap();
            let waits = self.found(&vault).state == ApprovalState::Scheduled;
            assert_eq!(waits, before_its_time, "{when}");
            scene.clock.advance_millis(scene.delay);
        }
        assert_eq!(block_on(vault.tend(|| true)).unwrap().failed, 0, "{when}");
        let ended = if begun { ApprovalState::Executed } else { ApprovalState::Pending };
        assert_eq!(self.found(&vault).state, ended, "{when}");
        self.opens_what_it_must(&vault, begun, when);
        // And it all comes to its end.
        scene.clock.advance_millis(6 * MINUTE);
        assert_eq!(block_on(vault.tend(|| true)).unwrap().failed, 0, "{when}");
        self.opens_what_it_must(&vault, begun, when);
        if begun {
            ReceiptText::verify(&self.found(&vault).receipt.unwrap(), &scene.verifier()).unwrap();
            assert_eq!(rows(&**store, Table::TenantKeys)[0]["state"], "destroyed", "{when}");
        }
    }

    fn opens_what_it_must(&self, vault: &Vault, begun: bool, when: &str) {
        let gone = [begun, begun && self.subject.is_none(), false];
        for ((target, envelope), gone) in self.targets.iter().zip(&self.envelopes).zip(gone) {
            match self.scene.decrypt(vault, target, envelope) {
                Ok(()) => assert!(!gone, "{when}: a shredded one opens"),
                Err(error) => assert!(gone && error == Error::Unopenable, "{when}: {error}"),
            }
            let sealed = self.scene.encrypt(vault, target);
            assert_eq!(matches!(sealed, Err(Error::FailedPrecondition(_))), gone, "{when}: {sealed:?}");
        }
    }
}
