//! The credential chain: the AWS SDK's, without every part that takes a secret from the environment.
//!
//! The SDK's own default chain begins with the static credentials of the environment and cannot be told not to, so the
//! chain is put together here.

use std::env;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::region::Region;

use super::settings::{CredentialSettings, CredentialSource};

const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";

/// In the place of a source that would take a secret from the environment.
#[derive(Debug)]
struct Refused;

impl ProvideCredentials for Refused {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let why = "no credentials are taken from the environment";
        future::ProvideCredentials::ready(Err(CredentialsError::invalid_configuration(why)))
    }
}

/// The container's endpoint, unless its token is in the environment.
#[derive(Debug)]
struct Container(EcsCredentialsProvider);

impl ProvideCredentials for Container {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        // The provider prefers the file; without one it would take the token.
        if env::var_os(TOKEN).is_some() && env::var_os(TOKEN_FILE).is_none() {
            return Refused.provide_credentials();
        }
        self.0.provide_credentials()
    }
}

fn container(config: &ProviderConfig) -> Container {
    Container(EcsCredentialsProvider::builder().configure(config).build())
}

fn profile(settings: &CredentialSettings, config: &ProviderConfig) -> ProfileFileCredentialsProvider {
    // A profile may name another source of credentials; these two would look into the environment.
    let mut profile = ProfileFileCredentialsProvider::builder()
        .configure(config)
        .with_custom_provider("Environment", Refused)
        .with_custom_provider("EcsContainer", container(config));
    if let Some(name) = &settings.profile {
        profile = profile.profile_name(name);
    }
    if let Some(file) = &settings.profile_file {
        let files = EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, file).build();
        profile = profile.profile_files(files);
    }
    profile.build()
}

/// The chain; `region` is where STS is asked for roles.
pub(super) fn chain(
    settings: &CredentialSettings,
    http: SharedHttpClient,
    region: Option<Region>,
) -> SharedCredentialsProvider {
    let config = ProviderConfig::without_region().with_region(region).with_http_client(http);
    // A chain starts with some provider: one that is never set up.
    let mut chain = CredentialsProviderChain::first_try("None", Nothing);
    for source in &settings.sources {
        chain = match source {
            CredentialSource::Profile => chain.or_else("Profile", profile(settings, &config)),
            CredentialSource::WebIdentity => chain
                .or_else("WebIdentityToken", WebIdentityTokenCredentialsProvider::builder().configure(&config).build()),
            CredentialSource::Container => chain.or_else("EcsContainer", container(&config)),
            CredentialSource::Instance => {
                chain.or_else("Ec2InstanceMetadata", ImdsCredentialsProvider::builder().configure(&config).build())
            }
        };
    }
    SharedCredentialsProvider::new(chain)
}

#[derive(Debug)]
struct Nothing;

impl ProvideCredentials for Nothing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("not set up")))
    }
}
