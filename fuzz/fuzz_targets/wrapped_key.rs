//! A wrapped key opens where it was wrapped, under the same tenant key, unchanged, and nowhere else; a second
//! implementation of the wrapping agrees.
#![no_main]

use arbitrary::Arbitrary;
use blindvault_fuzz::change::{Change, changed, pick};
use blindvault_fuzz::{reference, unlocked};
use libfuzzer_sys::fuzz_target;
use vault_core::envelope::Scope;
use vault_core::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use vault_core::keys::WrappingKey;
use vault_core::secret::Key32;

#[derive(Debug, Clone, Copy, PartialEq, Arbitrary)]
struct Place {
    tenant: u8,
    dataset: u8,
    subject: Option<u8>,
    id: u8,
    version: u8,
    tenant_key: u8,
    tenant_key_version: u8,
}

#[derive(Debug, Arbitrary)]
struct Input {
    key: [u8; 32],
    wrapped_at: Place,
    read_at: Option<Place>,
    changes: Vec<Change>,
}

impl Place {
    /// Few of each, so that places often differ in one thing only.
    fn few(self) -> Self {
        let Self { tenant, dataset, subject, id, version, tenant_key, tenant_key_version } = self;
        Self {
            tenant: tenant % 3,
            dataset: dataset % 3,
            subject: subject.map(|subject| subject % 3),
            id: id % 3,
            version: 1 + version % 3,
            tenant_key: tenant_key % 3,
            tenant_key_version: 1 + tenant_key_version % 3,
        }
    }

    fn names(&self) -> (&'static str, &'static str, Option<&'static str>) {
        let names = ["a", "ab", "b"];
        (pick(&names, self.tenant), pick(&names, self.dataset), self.subject.map(|subject| pick(&names, subject)))
    }

    fn wrapping(&self) -> (WrappingKey, Scope) {
        let (tenant, dataset, subject) = self.names();
        let tenant = TenantId::parse(tenant).unwrap();
        let key = Key32::copy_of(&[self.tenant_key; 32]).unwrap();
        let wrapping = WrappingKey::derive(&key, &tenant, KeyVersion(self.tenant_key_version.into())).unwrap();
        let subject = subject.map(|subject| Subject::parse(subject).unwrap());
        (wrapping, Scope { tenant, dataset: DatasetId::parse(dataset).unwrap(), subject })
    }

    /// docs/format.md, "Wrapped keys".
    fn open(&self, wrapped: &[u8]) -> Option<Vec<u8>> {
        let lp = |text: &str| [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
        let (tenant, dataset, subject) = self.names();
        let (version, above) = (u32::from(self.version).to_be_bytes(), u32::from(self.tenant_key_version).to_be_bytes());
        let key = reference::expand(&[self.tenant_key; 32], &[b"blindvault/wrap/v1\0", &lp(tenant)[..], &above].concat());
        let names = [lp(tenant), lp(dataset), lp(subject.unwrap_or_default())].concat();
        let aad = [b"blindvault/wrapaad/v1\0", &names[..], &[self.id; 16], &version, &above].concat();
        reference::kc_open(&key, wrapped.strip_prefix(&[1])?, &aad)
    }
}

fuzz_target!(|input: Input| {
    unlocked();
    let (here, there) = (input.wrapped_at.few(), input.read_at.unwrap_or(input.wrapped_at).few());
    let ((wrapping, scope), (reading, other)) = (here.wrapping(), there.wrapping());
    let key = Key32::copy_of(&input.key).unwrap();
    let wrapped = wrapping.wrap(&scope, KeyId([here.id; 16]), KeyVersion(here.version.into()), &key).unwrap();
    assert_eq!((wrapped.len(), here.open(&wrapped).as_deref()), (105, Some(&input.key[..])));
    let spoiled = changed(&wrapped, &input.changes);
    let same = here == there && spoiled == wrapped;
    let opened = reading.unwrap(&other, KeyId([there.id; 16]), KeyVersion(there.version.into()), &spoiled);
    assert_eq!(opened.is_ok_and(|opened| opened == key), same);
    assert_eq!(there.open(&spoiled).is_some(), same);
});
