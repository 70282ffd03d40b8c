//! A vault on a database, as a gateway is, with an audit log of its own.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pollster::block_on;
use vault_core::audit::LogVerifier;
use vault_core::fs::OsFs;
use vault_core::id::{Reason, Subject};
use vault_core::keys::{Approval, CacheSettings, ReceiptText, Seen};
use vault_core::kms::Roots;
use vault_core::principal::{Operator, Workload};
use vault_core::store::{PostgresSettings, PostgresStore};
use vault_core::time::SystemClock;
use vault_core::vault::{ApprovalSettings, DecryptRequest, EncryptRequest};
use vault_core::{Error, Vault};

use crate::fixture::{People, because, call, context, dataset, open_vault_on, resume, target, tenant};
use crate::pg_bed::INSTANCE;

/// Longer than anything here takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A vault with an audit log of its own.
pub(crate) struct Gateway {
    pub(crate) vault: Vault,
    pub(crate) billing: Workload,
    pub(crate) alice: Operator,
    pub(crate) bob: Operator,
    pub(crate) reason: Reason,
    dir: tempfile::TempDir,
}

impl Gateway {
    pub(crate) fn start(people: &People, root: &Arc<Roots>, settings: PostgresSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = block_on(PostgresStore::open(settings, Arc::clone(root), INSTANCE)).unwrap();
        let vault = open_vault_on(
            Arc::new(store),
            Arc::new(OsFs),
            dir.path(),
            Arc::new(SystemClock),
            CacheSettings::default(),
            Arc::clone(root),
        );
        let billing = people.workload("/ns/shop/sa/billing");
        let (alice, bob) = (people.operator("alice"), people.operator("bob"));
        Self { vault, billing, alice, bob, reason: because(), dir }
    }

    /// Makes the tenant and its dataset.
    pub(crate) fn set_up(&self) {
        block_on(self.vault.create_tenant(&call(&self.alice, &self.reason), &tenant("acme"))).unwrap();
        let at = (&tenant("acme"), &dataset("customers"));
        block_on(self.vault.create_dataset(&call(&self.alice, &self.reason), at, None, None)).unwrap();
    }

    pub(crate) fn encrypt(&self, subject: Option<&str>) -> Result<Vec<u8>, Error> {
        let target = target("acme", "customers", subject);
        let request = EncryptRequest { target: &target, context: &context(), plaintext: b"plain" };
        block_on(self.vault.encrypt(&self.billing, request)).map(|sealed| sealed.envelope)
    }

    pub(crate) fn decrypt(&self, envelope: &[u8]) -> Result<(), Error> {
        self.decrypt_of(None, envelope)
    }

    pub(crate) fn decrypt_of(&self, subject: Option<&str>, envelope: &[u8]) -> Result<(), Error> {
        let target = target("acme", "customers", subject);
        let request = DecryptRequest { target: &target, context: &context(), envelope };
        let opened = block_on(self.vault.decrypt(&self.billing, request))?;
        assert_eq!(opened.plaintext.expose(), b"plain");
        Ok(())
    }

    pub(crate) fn suspend(&self) {
        block_on(self.vault.suspend_tenant(&call(&self.alice, &self.reason), &tenant("acme"), None)).unwrap();
    }

    pub(crate) fn resume(&self) {
        // Whatever else changes the tenant meanwhile.
        loop {
            match resume(&self.vault, (&self.alice, &self.bob), "acme") {
                Err(Error::FailedPrecondition(why)) if why.contains("changed") => {}
                done => return drop(done.unwrap()),
            }
        }
    }

    /// How long until a decryption ends like this; it may end well before.
    pub(crate) fn until(&self, envelope: &[u8], wanted: &Result<(), Error>) -> Duration {
        let begun = Instant::now();
        loop {
            let result = self.decrypt(envelope);
            if result == *wanted {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "still {result:?}, not {wanted:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Asks for a subject to be shredded.
    pub(crate) fn ask(&self, subject: &str) -> Approval {
        let subject = Subject::parse(subject).unwrap();
        block_on(self.vault.shred_subject(&call(&self.alice, &self.reason), &tenant("acme"), &subject)).unwrap()
    }

    pub(crate) fn approve(&self, asked: &Approval) -> Result<Approval, Error> {
        self.approve_as(&self.bob, asked)
    }

    pub(crate) fn approve_as(&self, who: &Operator, asked: &Approval) -> Result<Approval, Error> {
        let seen = Seen { request_sha256: asked.request_sha256, subject: asked.ordered.subject() };
        block_on(self.vault.approve(&call(who, &self.reason), (&tenant("acme"), asked.id), seen))
    }

    /// The same gateway with other demands on approvals.
    pub(crate) fn with_approvals(self, settings: ApprovalSettings) -> Self {
        Self { vault: self.vault.with_approvals(settings), ..self }
    }

    pub(crate) fn found(&self, asked: &Approval) -> Approval {
        block_on(self.vault.get_approval(&call(&self.alice, &self.reason), &tenant("acme"), asked.id)).unwrap()
    }

    /// The receipt of an approval that this gateway signed.
    pub(crate) fn receipt(&self, of: &Approval) -> ReceiptText {
        let key = std::fs::read_to_string(self.dir.path().join("audit/log.pub")).unwrap();
        ReceiptText::verify(of.receipt.as_deref().unwrap(), &LogVerifier::parse(&key).unwrap()).unwrap()
    }
}

// A test file uses a part of this; naming all of it here keeps the rest from being reported as dead.
const _: () = {
    let _ = (Gateway::set_up, Gateway::suspend, Gateway::resume, Gateway::until, Gateway::decrypt, Gateway::encrypt);
    let _ = (Gateway::ask, Gateway::approve, Gateway::found, Gateway::receipt, Gateway::start);
    let _ = Gateway::with_approvals;
};
