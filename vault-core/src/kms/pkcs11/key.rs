//! The key in the token: found by its label, looked at before it is used, made only on purpose.

use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::types::Ulong;

use super::{Pkcs11Settings, Trouble, module};
use crate::error::Error;

fn named(settings: &Pkcs11Settings) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(settings.key.as_bytes().to_vec()),
    ]
}

/// The key, if it is one that may be a root key.
pub(super) fn find(session: &Session, settings: &Pkcs11Settings) -> Result<ObjectHandle, Trouble> {
    let found = session.find_objects(&named(settings)).map_err(|_| Trouble::Absent("the token finds no objects"))?;
    let key = match found.as_slice() {
        [] => return Err(Trouble::Wrong("key", "the token has no AES key of this label")),
        [key] => *key,
        _ => return Err(Trouble::Wrong("key", "the token has several AES keys of this label")),
    };
    let types = [
        AttributeType::Sensitive,
        AttributeType::Extractable,
        AttributeType::Token,
        AttributeType::Encrypt,
        AttributeType::Decrypt,
        AttributeType::ValueLen,
    ];
    let has = session.get_attributes(key, &types).map_err(|_| Trouble::Absent("the token shows no attributes"))?;
    let is = |attribute: Attribute| has.contains(&attribute);
    let rules = [
        (
            is(Attribute::Extractable(false)),
            "the key can be extracted (CKA_EXTRACTABLE); it must never have been made so",
        ),
        (is(Attribute::Sensitive(true)), "the key can be read (CKA_SENSITIVE is false)"),
        (is(Attribute::Token(true)), "the key is gone with its session (CKA_TOKEN is false)"),
        (is(Attribute::Encrypt(true)) && is(Attribute::Decrypt(true)), "the key must encrypt and decrypt"),
        (is(Attribute::ValueLen(Ulong::new(32))), "the key is not an AES-256 key"),
    ];
    match rules.into_iter().find(|(good, _)| !good) {
        None => Ok(key),
        Some((_, why)) => Err(Trouble::Wrong("key", why)),
    }
}

/// Makes the key.
pub(super) fn create(settings: &Pkcs11Settings) -> Result<(), Error> {
    let token = module::token(&settings.module, &settings.token)?;
    let session = token.session(&settings.pin_file, true)?;
    let found = session.find_objects(&named(settings)).map_err(|_| Trouble::Absent("the token finds no objects"))?;
    if !found.is_empty() {
        return Err(Error::AlreadyExists("AES key of this label"));
    }
    let mut template = named(settings);
    template.extend([
        Attribute::ValueLen(Ulong::new(32)),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::Derive(false),
        Attribute::AllowedMechanisms(vec![MechanismType::AES_GCM]),
    ]);
    let made = session.generate_key(&Mechanism::AesKeyGen, &template);
    made.map_err(|_| Trouble::Absent("the token makes no such key"))?;
    Ok(())
}
