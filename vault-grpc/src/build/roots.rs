//! The root keys of a configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use vault_core::kms::{Custody, RootEvent, RootId, RootKey, Roots};

use crate::config::{self, Config, ConfigError, CustodyNames, NamedRoot, Root};
use crate::telemetry::{Event, log};

/// The root keys, opened and checked, with the default custody.
///
/// # Errors
/// [`ConfigError`] for a root key that is not there, damaged, or not what a root key must be.
pub fn roots(config: &Config) -> Result<Arc<Roots>, ConfigError> {
    let config::Roots { roots, default, prefer, .. } = &config.roots;
    let mut builder = Roots::builder().watch(tell);
    let mut ids = BTreeMap::new();
    for named in roots {
        let root = open(named)?;
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

fn open(named: &NamedRoot) -> Result<Arc<dyn RootKey>, ConfigError> {
    match &named.root {
        #[cfg(feature = "dev")]
        Root::Local(file) => {
            let root = vault_core::kms::LocalRoot::open(&vault_core::fs::OsFs, &file.path);
            Ok(Arc::new(root.map_err(|error| file.error(error))?))
        }
        #[cfg(not(feature = "dev"))]
        Root::Local(file) => Err(file.error("a local root key exists in development builds only")),
        #[cfg(feature = "pkcs11")]
        Root::Pkcs11(pkcs11) => self::pkcs11::open(named, pkcs11),
        #[cfg(not(feature = "pkcs11"))]
        Root::Pkcs11(_) => Err(named.error("this build has no PKCS#11; it needs feature `pkcs11`")),
    }
}

/// What becomes of root keys, as log lines.
fn tell(event: &RootEvent) {
    match event {
        RootEvent::Failed(failure) => log(&Event::Failed { what: "use a root key", error: failure.clone().into() }),
        RootEvent::Recovered(root) => log(&Event::RootRecovered { root: root.clone() }),
    }
}
