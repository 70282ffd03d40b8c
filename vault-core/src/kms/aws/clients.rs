//! One SDK client a region, made when it is first needed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_config::identity::IdentityCache;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, Config, StalledStreamProtectionConfig};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::region::Region;
use tokio::sync::Semaphore;

use super::credentials;
use super::settings::AwsKmsSettings;

/// The client of a region, and the places for calls to it.
#[derive(Clone)]
pub(super) struct Regional {
    pub(super) client: Client,
    pub(super) calls: Arc<Semaphore>,
}

pub(super) struct Clients {
    http: SharedHttpClient,
    credentials: SharedCredentialsProvider,
    made: Mutex<HashMap<String, Regional>>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

impl Clients {
    pub(super) fn new(settings: &AwsKmsSettings) -> Self {
        // No proxy from the environment, no session written anywhere, no key log: rustls with the platform's roots.
        let provider = Provider::Rustls(CryptoMode::AwsLc);
        let http = aws_smithy_http_client::Builder::new().tls_provider(provider).build_https();
        let some_region = settings.home_region.as_deref().or_else(|| settings.keys.first().map(|arn| arn.region()));
        let region = some_region.or_else(|| settings.regions.first().map(String::as_str));
        let credentials = credentials::chain(
            &settings.credentials,
            http.clone(),
            region.map(|region| Region::new(region.to_owned())),
        );
        Self { http, credentials, made: Mutex::default() }
    }

    pub(super) fn region(&self, region: &str, settings: &AwsKmsSettings) -> Regional {
        // Nothing panics between taking this lock and the insertion of a whole value.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Regional {
            client: self.client(region, settings),
            calls: Arc::new(Semaphore::new(settings.calls_per_region)),
        };
        made.entry(region.to_owned()).or_insert_with(make).clone()
    }

    fn client(&self, region: &str, settings: &AwsKmsSettings) -> Client {
        // Retries and the bound of an attempt are ours, so that they stay within the caller's deadline.
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.to_owned()))
            .http_client(self.http.clone())
            .credentials_provider(self.credentials.clone())
            .identity_cache(IdentityCache::lazy().load_timeout(settings.attempt).build())
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(settings.attempt).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = settings.endpoints.get(region) {
            config = config.endpoint_url(endpoint);
        }
        Client::from_conf(config.build())
    }
}
