//! The root keys of a configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use vault_core::kms::{Custody, RootEvent, RootId, RootKey, Roots};

use crate::config::{self, Config, ConfigError, CustodyNames, NamedRoot, Root};
use crate::telemetry::{Event, log};

/// What to make of a root key that is not there now, such as a token that is not plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// It is an error.
    Refused,
    /// It is told, and tried again when it is needed, if there are other root keys. So one root that is down does not
    /// keep the tenants of the others down when the gateway starts again.
    Tolerated,
}

/// The root keys, opened and checked, with the default custody.
///
/// # Errors
/// [`ConfigError`] for a root key that is not there, damaged, or not what a root key must be.
pub fn roots(config: &Config, absent: Absent) -> Result<Arc<Roots>, ConfigError> {
    let config::Roots { roots, default, prefer, .. } = &config.roots;
    let mut builder = Roots::builder().watch(tell);
    #[cfg(feature = "aws")]
    let aws = aws(config)?;
    #[cfg(feature = "aws")]
    if let Some(provider) = &aws {
        builder = builder.provider("aws-kms", Arc::clone(provider) as _);
    }
    let mut ids = BTreeMap::new();
    for named in roots {
        let tolerant = absent == Absent::Tolerated && roots.len() > 1;
        let root = match &named.root {
            #[cfg(feature = "aws")]
            Root::AwsKms(arn) => aws
                .as_ref()
                .and_then(|provider| provider.key(arn))
                .ok_or_else(|| named.error("the key is not one that [aws] allows"))?,
            _ => open(named, tolerant)?,
        };
        ids.insert(named.name.as_str(), RootId::parse(root.id()).map_err(|error| named.error(error))?);
        builder = builder.root(root).map_err(|error| named.error(error))?;
    }
    let refused = |why: &dyn std::fmt::Display| ConfigError::new(&config.roots.default_place, why.to_string());
    let id = |name: &String| ids.get(name.as_str()).cloned().ok_or_else(|| refused(&"names no root key of this file"));
    let custody = match default {
        CustodyNames::Single(name) => Ok(Custody::single(id(name)?)),
        CustodyNames::Split(inner, outer) => Custody::split(id(inner)?, id(outer)?),
        CustodyNames::Replicated(names) => Custody::replicated(names.iter().map(id).collect::<Result<_, _>>()?),
    };
    let custody = custody.map_err(|error| refused(&error))?;
    let prefer = prefer.iter().map(id).collect::<Result<_, _>>()?;
    builder.prefer(prefer).build(custody).map_err(|error| refused(&error))
}

#[cfg_attr(not(feature = "pkcs11"), expect(unused_variables, reason = "other roots are files, always there"))]
fn open(named: &NamedRoot, tolerant: bool) -> Result<Arc<dyn RootKey>, ConfigError> {
    match &named.root {
        #[cfg(feature = "dev")]
        Root::Local(file) => {
            let root = vault_core::kms::LocalRoot::open(&vault_core::fs::OsFs, &file.path);
            Ok(Arc::new(root.map_err(|error| file.error(error))?))
        }
        #[cfg(not(feature = "dev"))]
        Root::Local(file) => Err(file.error("a local root key exists in development builds only")),
        #[cfg(feature = "pkcs11")]
        Root::Pkcs11(pkcs11) => in_module(named, pkcs11, tolerant),
        #[cfg(not(feature = "pkcs11"))]
        Root::Pkcs11(_) => Err(named.error("this build has no PKCS#11; it needs feature `pkcs11`")),
        #[cfg(feature = "aws")]
        Root::AwsKms(_) => Err(named.error("a key of AWS KMS comes from its provider")),
    }
}

/// Keys of AWS KMS, whose calls run on the runtime that this is called on. Nothing is asked of AWS yet.
#[cfg(feature = "aws")]
fn aws(config: &Config) -> Result<Option<Arc<vault_core::kms::aws::AwsKmsProvider>>, ConfigError> {
    let Some(settings) = &config.aws else { return Ok(None) };
    let refuse = |why: String| ConfigError::new(format!("{}, aws", config.file.display()), why);
    check_profile(config, settings)?;
    let runtime = tokio::runtime::Handle::try_current().map_err(|error| refuse(error.to_string()))?;
    let clock = Arc::new(vault_core::time::SystemClock);
    let provider = vault_core::kms::aws::AwsKmsProvider::new(settings.clone(), runtime, clock);
    provider.map(|provider| Some(Arc::new(provider))).map_err(|error| refuse(error.to_string()))
}

/// A file with an access key in it is a private key like any other: nobody else may read it.
#[cfg(feature = "aws")]
fn check_profile(config: &Config, settings: &vault_core::kms::aws::AwsKmsSettings) -> Result<(), ConfigError> {
    use std::env;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::PathBuf;

    use vault_core::kms::aws::CredentialSource;

    let credentials = &settings.credentials;
    if !credentials.sources.contains(&CredentialSource::Profile) {
        return Ok(());
    }
    let named = credentials.profile_file.clone();
    let named = named.or_else(|| env::var_os("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from));
    let Some(path) = named.or_else(|| Some(env::home_dir()?.join(".aws/credentials"))) else { return Ok(()) };
    // One that is not there is no source; the chain goes on to the next.
    let Ok(facts) = std::fs::metadata(&path) else { return Ok(()) };
    if facts.mode() & 0o077 == 0 {
        return Ok(());
    }
    let place = format!("{}, aws.profile_file", config.file.display());
    let why = format!("{}: mode {:04o} lets others read it; it must be 0600", path.display(), facts.mode() & 0o7777);
    Err(ConfigError::new(place, why))
}

#[cfg(feature = "pkcs11")]
fn in_module(named: &NamedRoot, of: &config::Pkcs11, tolerant: bool) -> Result<Arc<dyn RootKey>, ConfigError> {
    use vault_core::Error;
    use vault_core::kms::{IvSource, Pkcs11Root, Pkcs11Settings};

    let settings = Pkcs11Settings {
        module: of.module.path.clone(),
        token: of.token.clone(),
        key: of.key.clone(),
        pin_file: of.pin.path.clone(),
        sessions: of.sessions,
        timeout: of.timeout,
        iv: if of.module_makes_iv { IvSource::Module } else { IvSource::Os },
    };
    let refused = |error: Error| match &error {
        Error::Invalid { field, why } if field == "module" => of.module.error(why),
        Error::Invalid { field, why } if field == "pin_file" => of.pin.error(why),
        Error::Invalid { field, why } => named.error(format!("{field}: {why}")),
        _ => named.error(error),
    };
    let root = Pkcs11Root::new(settings).map_err(refused)?;
    match root.check() {
        Ok(()) => {}
        Err(error @ Error::Unavailable { .. }) if tolerant => {
            log(&Event::Failed { what: "reach a root key", error: absence(&root, &error) });
        }
        Err(error) => return Err(refused(error)),
    }
    Ok(Arc::new(root))
}

/// Names the root key that is not there.
#[cfg(feature = "pkcs11")]
fn absence(root: &dyn RootKey, error: &vault_core::Error) -> vault_core::Error {
    match error {
        vault_core::Error::Unavailable { why, .. } => {
            vault_core::Error::RootKey { root: root.id().to_owned(), retry: true, why }
        }
        other => other.clone(),
    }
}

/// What becomes of root keys, as log lines.
fn tell(event: &RootEvent) {
    match event {
        RootEvent::Failed(failure) => log(&Event::Failed { what: "use a root key", error: failure.clone().into() }),
        RootEvent::Recovered(root) => log(&Event::RootRecovered { root: root.clone() }),
    }
}
