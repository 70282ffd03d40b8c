//! `[operators]`: who operates the vault, by a signed list, and whose tokens prove that they have just signed in.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use vault_core::audit::LogVerifier;

use super::end_users::{self, RawIssuer, Section};
use super::read::{Reader, Text};
use super::{ConfigError, Environment, NamedFile, TokenIssuer};

/// Longest lifetime of an operator's certificate outside of development, unless the configuration says otherwise: a day.
const LIFETIME_S: u64 = 86_400;

/// The operators of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Operators {
    /// The list of them; with none, every operator is refused.
    pub list: Option<OperatorsFile>,
    /// Whose tokens they have to bring; with none, in development only, their certificates are enough.
    pub issuers: Vec<TokenIssuer>,
    /// Longest lifetime of their certificates; `None`, in development only, does not ask.
    pub max_certificate_lifetime: Option<Duration>,
}

/// A list of operators, and whose signature it has to bear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorsFile {
    /// The signed note.
    pub file: NamedFile,
    /// The owner's verifier key.
    pub owner: LogVerifier,
    /// Where the owner is named.
    pub(crate) owner_place: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOperators {
    list: Option<Text>,
    owner: Option<Text>,
    max_certificate_lifetime_s: Option<Spanned<u64>>,
    #[serde(default)]
    issuer: Vec<Spanned<RawOperatorIssuer>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOperatorIssuer {
    issuer: Text,
    audiences: Spanned<Vec<String>>,
    jwks_file: Option<Text>,
    jwks_url: Option<Text>,
    jwks_roots: Option<Text>,
    algorithms: Option<Vec<Text>>,
    typ: Option<Text>,
    mfa_amr: Option<Spanned<Vec<String>>>,
    mfa_acr: Option<Spanned<Vec<String>>>,
    mfa_max_age_s: Option<Spanned<u64>>,
    skew_s: Option<Spanned<u64>>,
    max_lifetime_s: Option<Spanned<u64>>,
    binding: Option<Text>,
    refresh_s: Option<Spanned<u64>>,
    cooldown_s: Option<Spanned<u64>>,
    stale_s: Option<Spanned<u64>>,
    timeout_ms: Option<Spanned<u64>>,
}

impl RawOperatorIssuer {
    /// An issuer of operators' tokens speaks for no tenant; and because certificate and token have to be of the same
    /// person, a token need not name the certificate, too.
    fn plain(self) -> RawIssuer {
        RawIssuer {
            issuer: self.issuer,
            audiences: self.audiences,
            tenants: Spanned::new(0..0, vec!["*".to_owned()]),
            jwks_file: self.jwks_file,
            jwks_url: self.jwks_url,
            jwks_roots: self.jwks_roots,
            algorithms: self.algorithms,
            typ: self.typ,
            tenant_claim: None,
            roles_claim: None,
            mfa_amr: self.mfa_amr,
            mfa_acr: self.mfa_acr,
            mfa_fresh_s: self.mfa_max_age_s,
            skew_s: self.skew_s,
            max_lifetime_s: self.max_lifetime_s,
            binding: self.binding.or_else(|| Some(Spanned::new(0..0, "if-present".to_owned()))),
            refresh_s: self.refresh_s,
            cooldown_s: self.cooldown_s,
            stale_s: self.stale_s,
            timeout_ms: self.timeout_ms,
        }
    }
}

pub(super) fn operators(
    reader: &Reader<'_>,
    raw: Option<Spanned<RawOperators>>,
    end_users: &[TokenIssuer],
    environment: Environment,
) -> Result<Operators, ConfigError> {
    let at = raw.as_ref().map_or(0, |raw| raw.span().start);
    let raw = raw.map(Spanned::into_inner).unwrap_or_default();
    let list = match (&raw.list, &raw.owner) {
        (None, None) => None,
        (Some(list), Some(owner)) => {
            let owner_place = reader.place(owner.span().start, "operators.owner");
            let refuse = |_| ConfigError::new(&owner_place, "must be a verifier key, as `operators key` prints it");
            let owner = LogVerifier::parse(owner.get_ref()).map_err(refuse)?;
            Some(OperatorsFile { file: reader.file(list, "operators.list")?, owner, owner_place })
        }
        _ => return Err(reader.refuse(at, "operators", "names list and owner, or neither")),
    };
    let mut issuers: Vec<TokenIssuer> = Vec::with_capacity(raw.issuer.len());
    for spanned in raw.issuer {
        let otherwise = spanned.span().start;
        let section = Section { name: "operators.issuer", otherwise, fresh: "mfa_max_age_s" };
        let issuer = end_users::issuer(reader, spanned.into_inner().plain(), section, environment)?;
        end_users::beside(reader, &issuers, &issuer, section)?;
        let refuse = |why: &str| Err(reader.refuse(otherwise, section.name, why));
        let (theirs, ours) = (end_users.iter().map(|user| &user.settings), &issuer.settings);
        if theirs
            .filter(|user| user.issuer == ours.issuer)
            .any(|user| user.audiences.iter().any(|audience| ours.audiences.contains(audience)))
        {
            return refuse(
                "has an audience in common with the same issuer under end_users: one token would do for both",
            );
        }
        if ours.mfa_amr.is_empty() && ours.mfa_acr.is_empty() {
            return refuse("names no second factor: give mfa_amr or mfa_acr");
        }
        issuers.push(issuer);
    }
    let production = environment == Environment::Production;
    if production && list.is_none() {
        return Err(reader.refuse(at, "operators.list", "must name the signed list of operators"));
    }
    if production && issuers.is_empty() {
        let why = "must be at least one: outside of development, a certificate alone does not make an operator";
        return Err(reader.refuse(at, "operators.issuer", why));
    }
    let key = "operators.max_certificate_lifetime_s";
    let lifetime = match &raw.max_certificate_lifetime_s {
        None if !production => None,
        value => Some(Duration::from_secs(reader.within(value, key, LIFETIME_S, 60, 90 * LIFETIME_S)?)),
    };
    Ok(Operators { list, issuers, max_certificate_lifetime: lifetime })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[derive(Deserialize)]
    struct Whole {
        operators: Option<Spanned<RawOperators>>,
    }

    fn read(text: &str, environment: Environment) -> Result<Operators, ConfigError> {
        let reader = Reader::of(text, Path::new("vault.toml"));
        let whole: Whole = toml::from_str(text).unwrap();
        operators(&reader, whole.operators, &[], environment)
    }

    fn refused(text: &str, environment: Environment) -> String {
        read(text, environment).unwrap_err().to_string()
    }

    fn owner() -> String {
        let dir = tempfile::tempdir().unwrap();
        let signer = vault_core::audit::LogSigner::create(&vault_core::fs::OsFs, &dir.path().join("key"), "shop/owner");
        signer.unwrap().verifier().vkey()
    }

    const ISSUER: &str =
        "[[operators.issuer]]\nissuer = \"https://id.example\"\naudiences = [\"vault\"]\njwks_file = \"jwks\"\n";

    #[test]
    fn outside_of_development_there_is_a_list_and_an_issuer_or_no_start() {
        let list = format!("[operators]\nlist = \"operators.note\"\nowner = \"{}\"\n", owner());
        for (text, key) in [("", "operators.list"), (ISSUER, "operators.list"), (list.as_str(), "operators.issuer")] {
            let error = read(text, Environment::Production).unwrap_err();
            assert!(error.place().ends_with(key), "{error}");
            read(text, Environment::Dev).unwrap();
        }
        let whole = read(&format!("{list}{ISSUER}"), Environment::Production).unwrap();
        assert_eq!(whole.max_certificate_lifetime, Some(Duration::from_secs(86_400)));
        let settings = &whole.issuers[0].settings;
        assert_eq!((settings.mfa_fresh_millis, settings.typ.as_str()), (900_000, "at+jwt"));
        assert_eq!(settings.binding, vault_core::principal::Binding::IfPresent);
        assert_eq!(read("", Environment::Dev).unwrap(), Operators::default());
    }

    #[test]
    fn errors_name_the_key() {
        let dev = |text: &str| refused(text, Environment::Dev);
        assert!(dev("[operators]\nlist = \"a\"\n").contains("line 1, operators: names list and owner"));
        let error = dev("[operators]\nlist = \"a\"\nowner = \"b\"\n");
        assert!(error.contains("line 3, operators.owner: must be a verifier key"), "{error}");
        let error = dev(&format!("{ISSUER}mfa_amr = []\n"));
        assert!(error.contains("line 1, operators.issuer: names no second factor"), "{error}");
        let error = dev(&format!("{ISSUER}mfa_max_age_s = 90000\n"));
        assert!(error.contains("line 5, operators.issuer.mfa_max_age_s: must be 0 to 86400"), "{error}");
        let error = dev(&format!("{ISSUER}algorithms = [\"HS256\"]\n"));
        assert!(error.contains("operators.issuer.algorithms"), "{error}");
        let error = dev("[operators]\nmax_certificate_lifetime_s = 1\n");
        assert!(error.contains("operators.max_certificate_lifetime_s: must be 60"), "{error}");
        assert!(dev(&format!("{ISSUER}{ISSUER}")).contains("configured twice"));
    }

    #[test]
    fn one_token_does_not_do_for_an_end_user_and_for_an_operator() {
        let settings = |audience| {
            let tenants = vault_core::principal::IssuerTenants::Any;
            vault_core::principal::IssuerSettings::new("https://id.example", audience, tenants)
        };
        let read = |audience| {
            let reader = Reader::of(ISSUER, Path::new("vault.toml"));
            let raw: Whole = toml::from_str(ISSUER).unwrap();
            let keys = super::super::IssuerKeys::File(NamedFile { path: "k".into(), place: String::new() });
            let user = TokenIssuer { settings: settings(audience), keys };
            operators(&reader, raw.operators, &[user], Environment::Dev)
        };
        assert!(read("vault").unwrap_err().to_string().contains("audience in common"));
        assert_eq!(read("shop").unwrap().issuers.len(), 1);
    }
}
