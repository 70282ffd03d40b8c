//! The root keys: `[root]`, or several `[roots.NAME]` with a `[custody]`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::read::{Reader, Text};
use super::{ConfigError, NamedFile};

/// What a `[root]` without a name is called.
const ONLY: &str = "root";

/// A root key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Root {
    /// A key file, for development.
    Local(NamedFile),
    /// A key in a hardware security module.
    Pkcs11(Pkcs11),
    /// A key of AWS KMS.
    #[cfg(feature = "aws")]
    AwsKms(vault_core::kms::aws::KeyArn),
}

/// A key in a hardware security module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs11 {
    /// The module: a shared library, as its vendor gives it.
    pub module: NamedFile,
    /// The token's label.
    pub token: String,
    /// The key's label.
    pub key: String,
    /// The user PIN (mode 0600).
    pub pin: NamedFile,
    /// Sessions at most, each with a thread of its own.
    pub sessions: usize,
    /// How long a call may take.
    pub timeout: Duration,
    /// True if the module makes the initialization vectors.
    pub module_makes_iv: bool,
}

/// A root key, what the configuration calls it, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRoot {
    /// `NAME` of `[roots.NAME]`; `root` for `[root]`.
    pub name: String,
    /// The key.
    pub root: Root,
    place: String,
}

impl NamedRoot {
    /// An error about this root key.
    pub fn error(&self, why: impl std::fmt::Display) -> ConfigError {
        ConfigError::new(&self.place, why.to_string())
    }
}

/// A custody by the names of its roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustodyNames {
    /// One root.
    Single(String),
    /// Two roots, both needed: the inner one and the outer one.
    Split(String, String),
    /// Several roots, any of which is enough.
    Replicated(Vec<String>),
}

/// The root keys, and the custody of tenants that none is named for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// The root keys; at least one.
    pub roots: Vec<NamedRoot>,
    /// The default custody.
    pub default: CustodyNames,
    /// Which replicas to ask first.
    pub prefer: Vec<String>,
    /// Where the default custody is chosen.
    pub(crate) default_place: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoot {
    kind: Text,
    path: Option<Text>,
    module: Option<Text>,
    token: Option<Text>,
    key: Option<Text>,
    pin_file: Option<Text>,
    sessions: Option<Spanned<u64>>,
    timeout_ms: Option<Spanned<u64>>,
    iv: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCustody {
    default: Option<Spanned<Value>>,
    #[serde(default)]
    prefer: Vec<Text>,
}

impl Roots {
    /// Those of AWS KMS.
    #[cfg(feature = "aws")]
    fn of_aws(&self) -> Vec<&vault_core::kms::aws::KeyArn> {
        fn arn(named: &NamedRoot) -> Option<&vault_core::kms::aws::KeyArn> {
            match &named.root {
                Root::AwsKms(arn) => Some(arn),
                _ => None,
            }
        }
        self.roots.iter().filter_map(arn).collect()
    }
}

impl Reader<'_> {
    /// The settings for AWS KMS: as written, or the defaults if a root key lies there.
    #[cfg(feature = "aws")]
    pub(super) fn aws(
        &self,
        raw: Option<&Spanned<super::aws::RawAws>>,
        roots: &Roots,
    ) -> Result<Option<vault_core::kms::aws::AwsKmsSettings>, ConfigError> {
        let keys = roots.of_aws();
        match raw {
            Some(raw) => super::aws::settings(self, raw.get_ref(), &keys, raw.span().start).map(Some),
            None if keys.is_empty() => Ok(None),
            None => super::aws::settings(self, &super::aws::RawAws::default(), &keys, 0).map(Some),
        }
    }

    pub(super) fn roots(
        &self,
        one: Option<&Spanned<RawRoot>>,
        several: &BTreeMap<Text, Spanned<RawRoot>>,
        custody: Option<&Spanned<RawCustody>>,
    ) -> Result<Roots, ConfigError> {
        let mut roots = Vec::new();
        if let Some(one) = one {
            if let Some((name, _)) = several.first_key_value() {
                let why = "there is a [root] already: name it too, as [roots.NAME]";
                return Err(self.refuse(name.span().start, "roots", why));
            }
            if let Some(custody) = custody {
                return Err(self.refuse(custody.span().start, "custody", "needs root keys with names: [roots.NAME]"));
            }
            roots.push(self.named(ONLY, "root", one)?);
        }
        for (name, root) in several {
            self.root_name(name)?;
            roots.push(self.named(name.get_ref(), &format!("roots.{}", name.get_ref()), root)?);
        }
        if roots.is_empty() {
            return Err(self.refuse(0, "root", "is needed, or at least one [roots.NAME]"));
        }
        let raw = custody.map(Spanned::get_ref);
        let (default, default_place) = match (raw.and_then(|raw| raw.default.as_ref()), roots.as_slice()) {
            (Some(default), _) => {
                let place = self.place(default.span().start, "custody.default");
                (self.default(default, &roots)?, place)
            }
            (None, [only]) => (CustodyNames::Single(only.name.clone()), only.place.clone()),
            (None, _) => {
                let at = custody.map_or(0, |custody| custody.span().start);
                return Err(self.refuse(at, "custody.default", "is needed where there are several root keys"));
            }
        };
        let prefer = raw.map(|raw| raw.prefer.as_slice()).unwrap_or_default();
        for name in prefer {
            self.known(name.get_ref(), &roots, name.span().start, "custody.prefer")?;
        }
        let prefer = prefer.iter().map(|name| name.get_ref().clone()).collect();
        Ok(Roots { roots, default, prefer, default_place })
    }

    fn root_name(&self, name: &Text) -> Result<(), ConfigError> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        if (1..=63).contains(&name.get_ref().len()) && name.get_ref().bytes().all(good) {
            return Ok(());
        }
        Err(self.refuse(name.span().start, "roots", "a root key's name must be 1 to 63 of the characters a-z 0-9 _ -"))
    }

    fn known(&self, name: &str, roots: &[NamedRoot], at: usize, key: &str) -> Result<String, ConfigError> {
        if roots.iter().any(|root| root.name == name) {
            return Ok(name.to_owned());
        }
        Err(self.refuse(at, key, "must name root keys of this file: the NAME of a [roots.NAME]"))
    }

    fn default(&self, default: &Spanned<Value>, roots: &[NamedRoot]) -> Result<CustodyNames, ConfigError> {
        const KEY: &str = "custody.default";
        let at = default.span().start;
        let refuse = |why: &str| Err(self.refuse(at, KEY, why));
        let names = |value: &Value| -> Result<Option<Vec<String>>, ConfigError> {
            let Some(names) = value.as_array() else { return Ok(None) };
            let Some(names) = names.iter().map(Value::as_str).collect::<Option<Vec<_>>>() else { return Ok(None) };
            names.into_iter().map(|name| self.known(name, roots, at, KEY)).collect::<Result<_, _>>().map(Some)
        };
        let mut chosen = match default.get_ref() {
            Value::String(name) => return self.known(name, roots, at, KEY).map(CustodyNames::Single),
            Value::Table(table) => table.iter(),
            _ => return refuse("must be a root key's name, { split = [A, B] } or { replicated = [A, B, …] }"),
        };
        let (Some((how, value)), None) = (chosen.next(), chosen.next()) else {
            return refuse("must be either { split = [A, B] } or { replicated = [A, B, …] }");
        };
        match (how.as_str(), names(value)?) {
            ("split", Some(names)) => match names.as_slice() {
                [inner, outer] if inner != outer => Ok(CustodyNames::Split(inner.clone(), outer.clone())),
                _ => refuse("split takes two different root keys: the inner one, the outer one"),
            },
            ("replicated", Some(names)) => {
                let twice = names.iter().enumerate().any(|(at, name)| names.iter().take(at).any(|n| n == name));
                if (2..=5).contains(&names.len()) && !twice {
                    Ok(CustodyNames::Replicated(names))
                } else {
                    refuse("replicated takes 2 to 5 different root keys")
                }
            }
            ("split" | "replicated", None) => refuse("must list root keys by their names"),
            _ => refuse("knows split and replicated only"),
        }
    }

    fn named(&self, name: &str, key: &str, raw: &Spanned<RawRoot>) -> Result<NamedRoot, ConfigError> {
        let root = self.root(key, raw.get_ref())?;
        Ok(NamedRoot { name: name.to_owned(), root, place: self.place(raw.get_ref().kind.span().start, key) })
    }

    fn root(&self, key: &str, raw: &RawRoot) -> Result<Root, ConfigError> {
        let at = raw.kind.span().start;
        let kind = raw.kind.get_ref().as_str();
        let refuse = |name: &str, why: &str| Err(self.refuse(at, &format!("{key}.{name}"), why));
        // What belongs to another kind would be ignored; say so instead.
        let of_pkcs11 = [
            ("module", raw.module.as_ref().map(Spanned::span)),
            ("token", raw.token.as_ref().map(Spanned::span)),
            ("key", raw.key.as_ref().map(Spanned::span)),
            ("pin_file", raw.pin_file.as_ref().map(Spanned::span)),
            ("sessions", raw.sessions.as_ref().map(Spanned::span)),
            ("timeout_ms", raw.timeout_ms.as_ref().map(Spanned::span)),
            ("iv", raw.iv.as_ref().map(Spanned::span)),
        ];
        let of_local = [("path", raw.path.as_ref().map(Spanned::span))];
        let foreign = match kind {
            "local" => of_pkcs11.as_slice(),
            "pkcs11" => of_local.as_slice(),
            "aws-kms" => &[&of_local[..], &of_pkcs11[..2], &of_pkcs11[3..]].concat(),
            _ => &[],
        };
        if let Some((name, span)) = foreign.iter().find_map(|(name, span)| Some((name, span.as_ref()?))) {
            let why = format!("a root key of kind \"{kind}\" has no such key");
            return Err(self.refuse(span.start, &format!("{key}.{name}"), why));
        }
        match kind {
            "local" if cfg!(feature = "dev") => match &raw.path {
                Some(path) => Ok(Root::Local(self.file(path, &format!("{key}.path"))?)),
                None => refuse("path", "a local root key needs the path of its file"),
            },
            "local" => refuse("kind", "\"local\" exists in development builds only"),
            "pkcs11" if cfg!(feature = "pkcs11") => self.pkcs11(key, raw).map(Root::Pkcs11),
            "pkcs11" => refuse("kind", "this build has no PKCS#11; it needs feature `pkcs11`"),
            #[cfg(feature = "aws")]
            "aws-kms" => match &raw.key {
                Some(arn) => Ok(Root::AwsKms(super::aws::arn(self, arn, &format!("{key}.key"))?)),
                None => refuse("key", "an AWS KMS root key needs the ARN of its key"),
            },
            #[cfg(not(feature = "aws"))]
            "aws-kms" => refuse("kind", "this build has no AWS KMS; it needs feature `aws`"),
            _ => {
                refuse("kind", "must be a kind of root key: \"aws-kms\" (aws), \"pkcs11\" (pkcs11) or \"local\" (dev)")
            }
        }
    }

    fn pkcs11(&self, key: &str, raw: &RawRoot) -> Result<Pkcs11, ConfigError> {
        let at = raw.kind.span().start;
        let named = |name: &str| format!("{key}.{name}");
        let needed = |text: &Option<Text>, name: &str, what: &str| match text {
            Some(text) => Ok(text.clone()),
            None => Err(self.refuse(at, &named(name), format!("a PKCS#11 root key needs {what}"))),
        };
        let label = |text: &Option<Text>, name: &str, what: &str, most: usize| {
            let text = needed(text, name, what)?;
            let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            if (1..=most).contains(&text.get_ref().len()) && text.get_ref().bytes().all(good) {
                return Ok(text.get_ref().clone());
            }
            let why = format!("must be 1 to {most} of the characters A-Z a-z 0-9 . _ -");
            Err(self.refuse(text.span().start, &named(name), why))
        };
        let within = |value: &Option<Spanned<u64>>, name: &str, default: u64, least: u64, most: u64| match value {
            None => Ok(default),
            Some(value) if (least..=most).contains(value.get_ref()) => Ok(*value.get_ref()),
            Some(value) => Err(self.refuse(value.span().start, &named(name), format!("must be {least} to {most}"))),
        };
        let module = needed(&raw.module, "module", "the path of its module, a shared library")?;
        let pin_file = needed(&raw.pin_file, "pin_file", "a file with the user PIN, mode 0600")?;
        Ok(Pkcs11 {
            module: self.file(&module, &named("module"))?,
            token: label(&raw.token, "token", "the label of its token", 32)?,
            key: label(&raw.key, "key", "the label of the key", 64)?,
            pin: self.file(&pin_file, &named("pin_file"))?,
            sessions: usize::try_from(within(&raw.sessions, "sessions", 4, 1, 64)?).unwrap_or(4),
            timeout: Duration::from_millis(within(&raw.timeout_ms, "timeout_ms", 5000, 100, 60_000)?),
            module_makes_iv: match raw.iv.as_ref().map(|iv| (iv, iv.get_ref().as_str())) {
                None | Some((_, "os")) => false,
                Some((_, "module")) => true,
                Some((iv, _)) => {
                    return Err(self.refuse(iv.span().start, &named("iv"), "must be \"os\" or \"module\""));
                }
            },
        })
    }
}
