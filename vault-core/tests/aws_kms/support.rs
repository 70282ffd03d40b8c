//! Providers and vaults for these tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vault_core::Vault;
use vault_core::fs::OsFs;
use vault_core::id::{KeyVersion, TenantId};
use vault_core::keys::CacheSettings;
use vault_core::kms::aws::{AwsKmsProvider, AwsKmsRoot, AwsKmsSettings, CredentialSource, KeyArn};
use vault_core::kms::{EncryptionContext, Layer};
use vault_core::time::{Clock, SystemClock};

use crate::fixture::open_vault_with;
use crate::localstack::{ACCOUNT, runtime};

/// A profile file, as LocalStack wants its credentials.
pub(crate) fn profile() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    std::fs::write(&file, "[default]\naws_access_key_id = test\naws_secret_access_key = test\n").unwrap();
    (dir, file)
}

/// Settings for the keys of LocalStack's account at `address`, patient with a busy machine.
pub(crate) fn settings(address: SocketAddr, profile: PathBuf) -> AwsKmsSettings {
    let regions = ["us-east-1", "eu-west-1"];
    let mut settings = AwsKmsSettings {
        accounts: vec![ACCOUNT.into()],
        regions: regions.map(str::to_owned).into(),
        endpoints: regions.map(|region| (region.to_owned(), format!("http://{address}"))).into(),
        deadline: Duration::from_secs(60),
        attempt: Duration::from_secs(20),
        ..AwsKmsSettings::default()
    };
    settings.credentials.sources = vec![CredentialSource::Profile];
    settings.credentials.profile_file = Some(profile);
    settings
}

/// Settings whose calls end within a second and a half, and whose breaker stays out of the way.
pub(crate) fn quick(address: SocketAddr, profile: PathBuf) -> AwsKmsSettings {
    let mut settings = settings(address, profile);
    settings.deadline = Duration::from_millis(1500);
    settings.attempt = Duration::from_millis(600);
    settings.breaker.failures = 1000;
    settings
}

pub(crate) fn provider(settings: AwsKmsSettings) -> AwsKmsProvider {
    AwsKmsProvider::new(settings, runtime().handle().clone(), Arc::new(SystemClock)).unwrap()
}

/// The root key of an ARN under `settings`.
pub(crate) fn root(settings: AwsKmsSettings, arn: &KeyArn) -> Arc<AwsKmsRoot> {
    provider(settings).key(arn).unwrap()
}

pub(crate) fn context(tenant: &str) -> EncryptionContext {
    EncryptionContext {
        instance: "one".into(),
        tenant: Some(TenantId::parse(tenant).unwrap()),
        version: KeyVersion::FIRST,
        layer: Layer::TenantKey,
    }
}

/// A vault under a root key, whose keys in memory live a minute of `clock`.
pub(crate) fn vault(dir: &tempfile::TempDir, root: Arc<AwsKmsRoot>, clock: Arc<dyn Clock>) -> Vault {
    let cache = CacheSettings { ttl_millis: 60_000, idle_millis: 60_000, ..CacheSettings::default() };
    open_vault_with(Arc::new(OsFs), dir.path(), clock, cache, root)
}
