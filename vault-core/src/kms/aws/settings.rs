//! What may be asked of AWS, and how.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::arn::{KeyArn, is_account, is_region};
use super::breaker::BreakerSettings;
use crate::error::Error;

/// Where AWS credentials may come from. There is no variant for the environment: no secret is taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialSource {
    /// A profile in the shared credentials and configuration files. A profile that runs a process, uses single
    /// sign-on or names the environment as its source is refused.
    Profile,
    /// A token file that is exchanged at STS (IAM roles for service accounts): `AWS_WEB_IDENTITY_TOKEN_FILE` and
    /// `AWS_ROLE_ARN` name file and role; neither is a secret.
    WebIdentity,
    /// The container's endpoint (ECS tasks, EKS Pod Identity). A token for it is taken from the file that
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE` names, never from the environment itself.
    Container,
    /// The instance metadata service (EC2), version 2 of its protocol only.
    Instance,
}

/// The credential chain: each source in its turn, until one is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialSettings {
    /// Which sources, in which order (default: all, in the order of [`CredentialSource`]).
    pub sources: Vec<CredentialSource>,
    /// The credentials file of [`CredentialSource::Profile`]; by default the AWS SDK's usual places.
    pub profile_file: Option<PathBuf>,
    /// The profile; by default the AWS SDK's choice (`default`, or what `AWS_PROFILE` names).
    pub profile: Option<String>,
}

impl Default for CredentialSettings {
    fn default() -> Self {
        use CredentialSource::{Container, Instance, Profile, WebIdentity};
        Self { sources: vec![Profile, WebIdentity, Container, Instance], profile_file: None, profile: None }
    }
}

/// The settings of [`super::AwsKmsProvider`]. The default allows no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsKmsSettings {
    /// Keys that may be used.
    pub keys: Vec<KeyArn>,
    /// Accounts (12 digits) any key of which may be used, if its region is in `regions` too.
    pub accounts: Vec<String>,
    /// Regions for `accounts`. A key listed in `keys` needs neither.
    pub regions: Vec<String>,
    /// Endpoints that differ from AWS's own, by region: VPC endpoints, emulators. `https://`, or `http://` on loopback.
    pub endpoints: BTreeMap<String, String>,
    /// If set, a multi-Region key that this region has an allowed replica of is asked here, whatever region its ARN
    /// names: rows need no change when an installation moves.
    pub home_region: Option<String>,
    /// Where credentials come from.
    pub credentials: CredentialSettings,
    /// How long a call may take in all, retries and waiting included (default 5 s, 100 ms to 60 s).
    pub deadline: Duration,
    /// How long one attempt may take (default 2 s, 50 ms to `deadline`).
    pub attempt: Duration,
    /// Calls at the same time to one key (default 16, 1 to 1024); others wait within their deadline.
    pub calls_per_key: usize,
    /// Calls at the same time to one region (default 64, 1 to 4096), which bounds the connections.
    pub calls_per_region: usize,
    /// When a key that does not answer is left alone.
    pub breaker: BreakerSettings,
}

impl Default for AwsKmsSettings {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            accounts: Vec::new(),
            regions: Vec::new(),
            endpoints: BTreeMap::new(),
            home_region: None,
            credentials: CredentialSettings::default(),
            deadline: Duration::from_secs(5),
            attempt: Duration::from_secs(2),
            calls_per_key: 16,
            calls_per_region: 64,
            breaker: BreakerSettings::default(),
        }
    }
}

const REGION: &str = "must be a region such as eu-west-1";

/// Whether `url` may be spoken to: TLS, or this machine itself.
fn is_endpoint(url: &str) -> bool {
    let (plain, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return false,
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let good_host = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'[' | b']' | b':'));
    let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    let loopback = host == "[::1]" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
    good_host && good_port && (!plain || loopback)
}

fn within<T: PartialOrd>(field: &'static str, value: T, least: T, most: T, why: &'static str) -> Result<(), Error> {
    if value < least || value > most { Err(Error::invalid(field, why)) } else { Ok(()) }
}

impl AwsKmsSettings {
    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field at fault, for example `accounts[1]`.
    pub fn check(&self) -> Result<(), Error> {
        for (at, account) in self.accounts.iter().enumerate() {
            if !is_account(account) {
                return Err(Error::invalid(format!("accounts[{at}]"), "must be an account's 12 digits"));
            }
        }
        for (at, region) in self.regions.iter().enumerate() {
            if !is_region(region) {
                return Err(Error::invalid(format!("regions[{at}]"), REGION));
            }
        }
        if self.accounts.is_empty() != self.regions.is_empty() {
            let field = if self.accounts.is_empty() { "accounts" } else { "regions" };
            return Err(Error::invalid(field, "accounts and regions go together: a key must match both"));
        }
        if self.keys.is_empty() && self.accounts.is_empty() {
            return Err(Error::invalid("keys", "no key is allowed: name keys, or accounts and regions"));
        }
        for (region, endpoint) in &self.endpoints {
            if !is_region(region) {
                return Err(Error::invalid("endpoints", REGION));
            }
            if !is_endpoint(endpoint) {
                return Err(Error::invalid(
                    format!("endpoints.{region}"),
                    "must be https://HOST[:PORT] without a path, or http:// with an address of this machine",
                ));
            }
        }
        if self.home_region.as_deref().is_some_and(|region| !is_region(region)) {
            return Err(Error::invalid("home_region", REGION));
        }
        if self.credentials.sources.is_empty() {
            return Err(Error::invalid("credentials.sources", "must name at least one source"));
        }
        let millis = Duration::from_millis;
        within("deadline", self.deadline, millis(100), millis(60_000), "must be 100 ms to 60 s")?;
        within("attempt", self.attempt, millis(50), self.deadline, "must be 50 ms to the deadline")?;
        within("calls_per_key", self.calls_per_key, 1, 1024, "must be 1 to 1024")?;
        within("calls_per_region", self.calls_per_region, 1, 4096, "must be 1 to 4096")?;
        within("breaker.failures", self.breaker.failures, 1, 1000, "must be 1 to 1000")?;
        within("breaker.pause", self.breaker.pause, millis(100), millis(300_000), "must be 100 ms to 5 min")
    }

    /// Whether a key may be used: listed, or of an allowed account in an allowed region.
    pub fn allows(&self, arn: &KeyArn) -> bool {
        let listed = |list: &[String], value: &str| list.iter().any(|allowed| allowed == value);
        self.keys.contains(arn) || (listed(&self.accounts, arn.account()) && listed(&self.regions, arn.region()))
    }

    /// The ARN to ask for a key: the replica in the home region, if there is an allowed one.
    pub(super) fn asked(&self, arn: &KeyArn) -> KeyArn {
        let home = self.home_region.as_deref().and_then(|region| arn.in_region(region));
        home.filter(|replica| self.allows(replica)).unwrap_or_else(|| arn.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234";
    const MULTI: &str = "arn:aws:kms:us-east-1:111122223333:key/mrk-12";

    fn good() -> AwsKmsSettings {
        AwsKmsSettings {
            accounts: vec!["111122223333".into()],
            regions: vec!["eu-west-1".into()],
            ..AwsKmsSettings::default()
        }
    }

    #[test]
    fn nothing_is_allowed_that_is_not_named() {
        assert!(!AwsKmsSettings::default().allows(&KeyArn::parse(KEY).unwrap()));
        let settings = good();
        settings.check().unwrap();
        let allows = |arn: &str| settings.allows(&KeyArn::parse(arn).unwrap());
        assert!(allows(KEY));
        assert!(!allows(&KEY.replace("eu-west-1", "eu-west-2")));
        assert!(!allows(&KEY.replace("111122223333", "444455556666")));
        let one = AwsKmsSettings { keys: vec![KeyArn::parse(KEY).unwrap()], ..AwsKmsSettings::default() };
        one.check().unwrap();
        assert!(one.allows(&KeyArn::parse(KEY).unwrap()));
        assert!(!one.allows(&KeyArn::parse(&KEY.replace("1234", "1235")).unwrap()));
    }

    #[test]
    fn a_replica_at_home_is_asked_only_if_it_is_allowed() {
        let home = AwsKmsSettings { home_region: Some("eu-west-1".into()), ..good() };
        let multi = KeyArn::parse(MULTI).unwrap();
        assert_eq!(home.asked(&multi).as_str(), MULTI.replace("us-east-1", "eu-west-1"));
        assert_eq!(good().asked(&multi), multi);
        let elsewhere = AwsKmsSettings { home_region: Some("eu-west-2".into()), ..good() };
        assert_eq!(elsewhere.asked(&multi), multi);
        let single = KeyArn::parse(&KEY.replace("eu-west-1", "us-east-1")).unwrap();
        assert_eq!(home.asked(&single), single);
    }

    #[test]
    fn each_unacceptable_value_is_named() {
        type Change = fn(&mut AwsKmsSettings);
        let table: [(Change, &str); 16] = [
            (|s| s.accounts = vec!["12".into()], "accounts[0]"),
            (|s| s.regions.push("EU".into()), "regions[1]"),
            (|s| s.regions.clear(), "regions"),
            (|s| s.accounts.clear(), "accounts"),
            (|s| *s = AwsKmsSettings::default(), "keys"),
            (|s| drop(s.endpoints.insert("eu-west-1".into(), "http://kms.example".into())), "endpoints.eu-west-1"),
            (|s| drop(s.endpoints.insert("?".into(), "https://kms.example".into())), "endpoints"),
            (|s| s.home_region = Some(String::new()), "home_region"),
            (|s| s.credentials.sources.clear(), "credentials.sources"),
            (|s| s.deadline = Duration::from_secs(61), "deadline"),
            (|s| s.attempt = Duration::from_secs(6), "attempt"),
            (|s| s.attempt = Duration::ZERO, "attempt"),
            (|s| s.calls_per_key = 0, "calls_per_key"),
            (|s| s.calls_per_region = 5000, "calls_per_region"),
            (|s| s.breaker.failures = 0, "breaker.failures"),
            (|s| s.breaker.pause = Duration::ZERO, "breaker.pause"),
        ];
        for (change, expected) in table {
            let mut settings = good();
            change(&mut settings);
            assert!(matches!(settings.check(), Err(Error::Invalid { field, .. }) if field == expected), "{expected}");
        }
    }

    #[test]
    fn an_endpoint_is_tls_or_this_machine() {
        for endpoint in [
            "https://kms.example",
            "https://vpce-1.kms.eu-west-1.vpce.amazonaws.com:443/",
            "http://127.0.0.1:4566",
            "http://[::1]:80",
        ] {
            assert!(is_endpoint(endpoint), "{endpoint}");
        }
        for endpoint in [
            "",
            "kms.example",
            "http://kms.example",
            "http://localhost:1",
            "http://10.0.0.1:1",
            "https://",
            "https://u@h",
            "https://h/path",
            "https://h?q",
            "https://h:0",
            "https://h:99999",
            "ftp://h",
            "http://127.0.0.1.evil.example",
        ] {
            assert!(!is_endpoint(endpoint), "{endpoint}");
        }
    }
}
