//! The text of a list (`docs/operators.md`): lines of `key: value`, one way to write each list.

use std::collections::BTreeSet;

use super::{MAX_LIST, OperatorList, Person, Role, TokenName};
use crate::error::Error;
use crate::principal::SpiffeId;

const TITLE: &str = "blindvault operators v1";

pub(super) fn write(list: &OperatorList) -> String {
    let mut out = format!("{TITLE}\ninstance: {}\nversion: {}\n", list.instance, list.version);
    let mut line = |key: &str, value: &str| {
        out.extend([key, ": ", value, "\n"]);
    };
    for Person { id, certificates, tokens, roles } in &list.people {
        line("person", id);
        certificates.iter().for_each(|id| line("certificate", id.as_str()));
        tokens.iter().for_each(|token| line("token", &token.to_string()));
        let roles: Vec<_> = roles.iter().map(|role| role.name()).collect();
        line("roles", &roles.join(" "));
    }
    out
}

/// Reads the lines. Order, bounds and repetitions are the caller's to check.
pub(super) fn read(text: &str) -> Result<OperatorList, Error> {
    let refuse = |line: usize, why| Error::invalid(format!("operators line {line}"), why);
    if text.len() > MAX_LIST {
        return Err(Error::invalid("operators", "the list is longer than 60,000 bytes"));
    }
    let text = text.strip_suffix('\n').ok_or_else(|| Error::invalid("operators", "the last line is not ended"))?;
    let mut lines = text.split('\n').zip(1..);
    let mut head = |key: &str, why| match lines.next() {
        Some((line, at)) => line.strip_prefix(key).ok_or_else(|| refuse(at, why)),
        None => Err(Error::invalid("operators", why)),
    };
    if !head(TITLE, "must be `blindvault operators v1`")?.is_empty() {
        return Err(refuse(1, "must be `blindvault operators v1`"));
    }
    let instance = head("instance: ", "must be `instance: ` and the gateway's instance")?.to_owned();
    let version = head("version: ", "must be `version: ` and a number")?;
    let version = version.parse().map_err(|_| refuse(3, "must be `version: ` and a number"))?;
    let mut people: Vec<Person> = Vec::new();
    for (line, at) in lines {
        let (key, value) =
            line.split_once(": ").ok_or_else(|| refuse(at, "must be a key, a colon, a space, a value"))?;
        if key == "person" {
            let (certificates, tokens, roles) = (Vec::new(), Vec::new(), BTreeSet::new());
            people.push(Person { id: value.to_owned(), certificates, tokens, roles });
            continue;
        }
        let person = people.last_mut().ok_or_else(|| refuse(at, "must be `person: ` and an id"))?;
        match key {
            "certificate" => {
                let id = SpiffeId::parse(value).map_err(|_| refuse(at, "must be a SPIFFE ID"))?;
                person.certificates.push(id);
            }
            "token" => {
                let (issuer, subject) =
                    value.split_once(' ').ok_or_else(|| refuse(at, "must be an issuer, a space, and a subject"))?;
                person.tokens.push(TokenName { issuer: issuer.to_owned(), subject: subject.to_owned() });
            }
            "roles" if !person.roles.is_empty() => return Err(refuse(at, "the person has a line with roles already")),
            "roles" => {
                for role in value.split(' ') {
                    let role = Role::named(role)
                        .ok_or_else(|| refuse(at, "must be of approver, auditor, author, custodian, viewer"))?;
                    if !person.roles.insert(role) {
                        return Err(refuse(at, "names a role twice"));
                    }
                }
            }
            _ => return Err(refuse(at, "the keys are person, certificate, token, roles")),
        }
    }
    Ok(OperatorList { instance, version, people })
}
