//! Tenants under a KMS key: what opens them, and what no longer does.

use std::sync::Arc;

use pollster::block_on;
use vault_core::fs::OsFs;
use vault_core::id::KeyVersion;
use vault_core::keys::CacheSettings;
use vault_core::kms::aws::KeyArn;
use vault_core::kms::{EncryptionContext, Layer, MAX_INNER, RootError, RootKey as _, RootProvider as _};
use vault_core::principal::Workload;
use vault_core::secret::Key32;
use vault_core::time::{Clock as _, ManualClock, SystemClock};
use vault_core::vault::{DecryptRequest, EncryptRequest, Target};
use vault_core::{Error, Vault};

use crate::fault_proxy::FaultProxy;
use crate::fixture::{self, People, because, call, dataset, target, tenant};
use crate::localstack::{Owner, localstack};
use crate::support::{context, profile, provider, root, settings, vault};

const BILLING: &str = "/ns/shop/sa/billing";

/// A tenant with one envelope.
struct Scene {
    vault: Vault,
    billing: Workload,
    at: Target,
    envelope: Vec<u8>,
}

impl Scene {
    fn new(vault: Vault) -> Self {
        let people = People::new();
        let (alice, reason) = (people.operator("alice"), because());
        block_on(vault.create_tenant(&call(&alice, &reason), &tenant("acme"))).unwrap();
        let name = dataset("customers");
        block_on(vault.create_dataset(&call(&alice, &reason), (&tenant("acme"), &name), None, None)).unwrap();
        let (billing, at) = (people.workload(BILLING), target("acme", "customers", None));
        let request = EncryptRequest { target: &at, context: &fixture::context(), plaintext: b"DE89 3704" };
        let envelope = block_on(vault.encrypt(&billing, request)).unwrap().envelope;
        Self { vault, billing, at, envelope }
    }

    fn decrypt(&self) -> Result<Vec<u8>, Error> {
        let request = DecryptRequest { target: &self.at, context: &fixture::context(), envelope: &self.envelope };
        block_on(self.vault.decrypt(&self.billing, request)).map(|opened| opened.plaintext.expose().to_vec())
    }
}

#[test]
fn a_tenant_under_a_kms_key_opens_after_eviction_and_after_a_restart() {
    let Some(aws) = localstack("a_tenant_under_a_kms_key_opens_after_eviction_and_after_a_restart") else { return };
    let ((_profile, file), dir) = (profile(), tempfile::tempdir().unwrap());
    let key = aws.new_key();
    let under = root(settings(aws.address, file.clone()), &key);
    assert_eq!(under.id(), format!("aws-kms:{key}"));
    let mut scene = Scene::new(vault(&dir, under, Arc::new(SystemClock)));
    assert_eq!(scene.decrypt().unwrap(), b"DE89 3704");
    scene.vault.keys().evict_all();
    assert_eq!(scene.decrypt().unwrap(), b"DE89 3704");
    // Another process would come to the same: nothing but the files and KMS.
    let Scene { vault: first, .. } = scene;
    drop(first);
    let again = vault(&dir, root(settings(aws.address, file.clone()), &key), Arc::new(SystemClock));
    let people = People::new();
    scene = Scene { vault: again, billing: people.workload(BILLING), at: scene.at, envelope: scene.envelope };
    assert_eq!(scene.decrypt().unwrap(), b"DE89 3704");
    // Under another key of the same account, nothing opens.
    let wrapped = block_on(root(settings(aws.address, file.clone()), &key).generate(&context("acme"))).unwrap().wrapped;
    let other = root(settings(aws.address, file), &aws.new_key());
    assert_eq!(block_on(other.unwrap(&wrapped, &context("acme"))).err(), Some(RootError::NotMine));
}

#[test]
fn a_wrapped_key_opens_for_its_context_and_layer_only() {
    let Some(aws) = localstack("a_wrapped_key_opens_for_its_context_and_layer_only") else { return };
    let (_profile, file) = profile();
    let root = root(settings(aws.address, file), &aws.new_key());
    let acme = context("acme");
    let generated = block_on(root.generate(&acme)).unwrap();
    let unwrap = |wrapped: &[u8], context: &EncryptionContext| block_on(root.unwrap(wrapped, context));
    assert!(unwrap(&generated.wrapped, &acme).unwrap() == generated.key);
    // The same key wrapped once more: another ciphertext, the same key.
    let wrapped = block_on(root.wrap(&generated.key, &acme)).unwrap();
    assert!(wrapped != generated.wrapped && unwrap(&wrapped, &acme).unwrap() == generated.key);
    for wrong in [
        context("globex"),
        EncryptionContext { instance: "two".into(), ..acme.clone() },
        EncryptionContext { version: KeyVersion(2), ..acme.clone() },
        EncryptionContext { layer: Layer::Outer, ..acme.clone() },
        EncryptionContext { layer: Layer::StoreKey, ..acme.clone() },
        EncryptionContext { tenant: None, ..acme.clone() },
    ] {
        assert_eq!(unwrap(&generated.wrapped, &wrong).err(), Some(RootError::NotMine), "{wrong:?}");
    }
    let mut altered = generated.wrapped.clone();
    *altered.last_mut().unwrap() ^= 1;
    let long = vec![0; 6145];
    for bad in [&altered[..], &generated.wrapped[..40], &[], &long] {
        assert_eq!(unwrap(bad, &acme).err(), Some(RootError::NotMine), "{} bytes", bad.len());
    }

    // The outer layer of a split root: what another root made, never a tenant key.
    let outer = EncryptionContext { layer: Layer::Outer, ..acme.clone() };
    for inner in [&[7; 1][..], &[7; 105], &[7; MAX_INNER]] {
        let sealed = block_on(root.seal(inner, &outer)).unwrap();
        assert_eq!(block_on(root.open(&sealed, &outer)).unwrap(), inner);
        assert_eq!(block_on(root.open(&sealed, &acme)).err(), Some(RootError::NotMine));
    }
    assert_eq!(block_on(root.open(&generated.wrapped, &outer)).err(), Some(RootError::NotMine));
    let misused = |result: Option<RootError>| matches!(result, Some(RootError::Unavailable(_)));
    assert!(misused(block_on(root.seal(&[7; MAX_INNER + 1], &outer)).err()));
    assert!(misused(block_on(root.seal(&[7; 8], &acme)).err()));
    assert!(misused(block_on(root.generate(&outer)).err()));
    assert!(misused(block_on(root.wrap(&generated.key, &outer)).err()));
    // What is not 32 bytes is no key, though KMS opens it.
    let store = EncryptionContext { tenant: None, layer: Layer::StoreKey, ..acme };
    let owner = aws.owner("us-east-1");
    let short = owner.encrypt(root.arn(), &[7; 31], &store);
    assert!(misused(block_on(root.unwrap(&short, &store)).err()));
    assert!(block_on(root.unwrap(&owner.encrypt(root.arn(), &[7; 32], &store), &store)).is_ok());
}

/// What an owner does to a key, and undoes.
struct Taken {
    take: fn(&Owner, &KeyArn),
    give_back: fn(&Owner, &KeyArn),
    error: RootError,
    says: &'static str,
}

#[test]
fn a_key_that_its_owner_takes_away_ends_the_tenants_data_within_the_cache_ttl() {
    let Some(aws) = localstack("a_key_that_its_owner_takes_away_ends_the_tenants_data_within_the_cache_ttl") else {
        return;
    };
    let owner = aws.owner("us-east-1");
    for taken in [
        Taken { take: Owner::disable, give_back: Owner::enable, error: RootError::Disabled, says: "disabled" },
        Taken {
            take: Owner::schedule_deletion,
            give_back: |owner, key| {
                owner.cancel_deletion(key);
                owner.enable(key);
            },
            error: RootError::InvalidState,
            says: "being deleted",
        },
    ] {
        let ((_profile, file), dir, key) = (profile(), tempfile::tempdir().unwrap(), aws.new_key());
        let root = root(settings(aws.address, file), &key);
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let scene = Scene::new(vault(&dir, Arc::clone(&root), Arc::clone(&clock) as _));
        let wrapped = block_on(root.generate(&context("acme"))).unwrap().wrapped;
        (taken.take)(&owner, &key);
        clock.advance_millis(59_000);
        assert_eq!(scene.decrypt().unwrap(), b"DE89 3704", "what is in memory stays until its time is over");
        clock.advance_millis(1_000);
        let refused = scene.decrypt();
        assert!(
            matches!(refused, Err(Error::RootKey { retry: false, why, .. }) if why.contains(taken.says)),
            "{refused:?}"
        );
        println!("measured: KMS key {}: served for 59 s of a key's time to live of 60 s, then refused", taken.says);
        let fresh = Key32::generate().unwrap();
        let outer = EncryptionContext { layer: Layer::Outer, ..context("acme") };
        assert_eq!(block_on(root.unwrap(&wrapped, &context("acme"))).err(), Some(taken.error));
        assert_eq!(block_on(root.generate(&context("acme"))).err(), Some(taken.error));
        assert_eq!(block_on(root.wrap(&fresh, &context("acme"))).err(), Some(taken.error));
        assert_eq!(block_on(root.seal(b"inner", &outer)).err(), Some(taken.error));
        (taken.give_back)(&owner, &key);
        assert_eq!(scene.decrypt().unwrap(), b"DE89 3704");
    }
}

#[test]
fn a_replica_in_another_region_opens_what_its_primary_wrapped() {
    let Some(aws) = localstack("a_replica_in_another_region_opens_what_its_primary_wrapped") else { return };
    let (_profile, file) = profile();
    let owner = aws.owner("us-east-1");
    let primary = owner.create(true);
    let replica = owner.replicate(&primary, "eu-west-1");
    assert!(primary.same_key(&replica) && replica.region() == "eu-west-1");
    let both = provider(settings(aws.address, file.clone()));
    let generated = block_on(both.key(&primary).unwrap().generate(&context("acme"))).unwrap();
    let far = both.key(&replica).unwrap();
    assert!(block_on(far.unwrap(&generated.wrapped, &context("acme"))).unwrap() == generated.key);
    // At home in Europe, the row's ARN stays that of the primary and the replica is asked.
    let mut home = settings(aws.address, file.clone());
    home.home_region = Some("eu-west-1".into());
    home.endpoints.insert("us-east-1".into(), "http://127.0.0.1:9".into());
    let home = root(home, &primary);
    assert_eq!((home.id(), home.arn()), (primary.root_id().as_str(), &replica));
    assert!(block_on(home.unwrap(&generated.wrapped, &context("acme"))).unwrap() == generated.key);
    // A key that has no replica there is asked where it is, under the same settings.
    let elsewhere = owner.create(false);
    let mut settings = settings(aws.address, file);
    settings.home_region = Some("eu-west-1".into());
    let elsewhere = root(settings, &elsewhere);
    assert!(block_on(elsewhere.generate(&context("acme"))).is_ok());
}

#[test]
fn only_allowed_keys_are_given() {
    let (_profile, file) = profile();
    let provider = provider(settings(([127, 0, 0, 1], 9).into(), file));
    let arn = format!("arn:aws:kms:us-east-1:{}:key/1234", crate::localstack::ACCOUNT);
    let id = format!("aws-kms:{arn}");
    assert_eq!(provider.root(&id).unwrap().id(), id);
    assert!(Arc::ptr_eq(
        &provider.key(&KeyArn::parse(&arn).unwrap()).unwrap(),
        &provider.key(&KeyArn::parse(&arn).unwrap()).unwrap()
    ));
    for other in [
        id.replace("us-east-1", "us-east-2"),
        id.replace("000000000000", "111122223333"),
        id.replace("key/", "alias/"),
        arn,
        "local:00".into(),
    ] {
        assert!(provider.root(&other).is_none(), "{other}");
    }
}

#[test]
fn a_thousand_cold_callers_of_one_tenant_cause_one_kms_call() {
    let Some(aws) = localstack("a_thousand_cold_callers_of_one_tenant_cause_one_kms_call") else { return };
    let ((_profile, file), dir) = (profile(), tempfile::tempdir().unwrap());
    let proxy = FaultProxy::http(aws.address);
    let root = root(settings(proxy.address, file), &aws.new_key());
    let vault =
        fixture::open_vault_with(Arc::new(OsFs), dir.path(), Arc::new(SystemClock), CacheSettings::default(), root);
    let scene = Scene::new(vault);
    assert_eq!(proxy.take_requests(), ["GenerateDataKey", "Decrypt", "Decrypt"], "made, opened again, and loaded");
    scene.vault.keys().evict_all();
    let (context, at) = (fixture::context(), &scene.at);
    let request = DecryptRequest { target: at, context: &context, envelope: &scene.envelope };
    let all = block_on(scene.vault.decrypt_all(&scene.billing, std::iter::repeat_n(request, 1000)));
    assert!(all.iter().all(|one| one.as_ref().is_ok_and(|opened| opened.plaintext.expose() == b"DE89 3704")));
    assert_eq!(proxy.take_requests(), ["Decrypt"]);
}

#[test]
fn many_cold_tenants_open_no_more_connections_than_there_are_places() {
    let Some(aws) = localstack("many_cold_tenants_open_no_more_connections_than_there_are_places") else { return };
    let (_profile, file) = profile();
    let proxy = FaultProxy::http(aws.address);
    let settings = vault_core::kms::aws::AwsKmsSettings { calls_per_key: 4, ..settings(proxy.address, file) };
    let root = root(settings, &aws.new_key());
    let contexts: Vec<_> = (0..100).map(|n| context(&format!("tenant-{n}"))).collect();
    let all = block_on(futures_util::future::join_all(contexts.iter().map(|context| root.generate(context))));
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(proxy.take_requests().len(), 100);
    assert!((1..=4).contains(&proxy.most_connections()), "{}", proxy.most_connections());
    assert!(proxy.connections() <= 8, "connections are used again: {}", proxy.connections());
}
