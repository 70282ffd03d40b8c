use std::collections::BTreeSet;

use super::*;
use crate::principal::IdentityError;
use crate::time::Timestamp;

const TEXT: &str = "\
blindvault operators v1
instance: shop-1
version: 7
person: alice
certificate: spiffe://operators.example/operator/alice
certificate: spiffe://operators.example/operator/alice-phone
token: https://id.example alice@example.com
roles: author custodian
person: bob
certificate: spiffe://operators.example/operator/bob
token: https://id.example bob@example.com
token: https://other.example bob
roles: approver
";

const DIGEST: &str = "version 7 (sha256:aa0e97b8ae84269feb44ab2f206437decf1a3a89aa9e906c8777d7f93c521e1d)";

fn list() -> OperatorList {
    OperatorList::parse(TEXT).unwrap()
}

fn proven(name: &str) -> Operator {
    Operator::for_test_unlisted(&format!("spiffe://operators.example/operator/{name}"))
}

fn token(issuer: &str, subject: &str) -> OperatorToken {
    OperatorToken::for_test(issuer, subject, Timestamp(5_000))
}

fn refused(text: &str) -> String {
    match OperatorList::parse(text).unwrap_err() {
        Error::Invalid { field, why } => format!("{field}: {why}"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_list_is_read_as_it_is_written() {
    let list = list();
    assert_eq!((list.text().as_str(), list.instance(), list.people().len()), (TEXT, "shop-1", 2));
    let mut backwards = list.people().to_vec();
    backwards.reverse();
    backwards.iter_mut().for_each(|person| {
        person.certificates.reverse();
        person.tokens.reverse();
    });
    assert_eq!(OperatorList::new("shop-1", 7, backwards).unwrap(), list);
    // SHA-256 of the text, by sha256sum.
    assert_eq!(list.reference().to_string(), DIGEST);
}

#[test]
fn certificate_and_list_make_a_person_with_roles() {
    let list = list();
    let (alice, phone) =
        (list.admit(&proven("alice"), None).unwrap(), list.admit(&proven("alice-phone"), None).unwrap());
    assert_eq!((alice.person(), phone.person()), (Some("alice"), Some("alice")), "one person, two certificates");
    assert_eq!(phone.roles().collect::<Vec<_>>(), [Role::Author, Role::Custodian]);
    let mallory = list.admit(&proven("mallory"), None).unwrap();
    assert_eq!((mallory.person(), mallory.roles().count()), (None, 0));
    let nobody = OperatorList::default().admit(&proven("alice"), None).unwrap();
    assert_eq!((nobody.person(), nobody.roles().count()), (None, 0), "the empty list knows nobody");
}

#[test]
fn certificate_and_token_have_to_be_of_one_person() {
    let list = list();
    let admit = |who: &str, issuer: &str, subject: &str| list.admit(&proven(who), Some(&token(issuer, subject)));
    let alice = admit("alice", "https://id.example", "alice@example.com").unwrap();
    assert_eq!(alice.token_until(), Some(Timestamp(5_000)));
    assert!(alice.valid_at(Timestamp(4_999)) && !alice.valid_at(Timestamp(5_000)), "no longer than the token");
    assert!(admit("bob", "https://other.example", "bob").is_ok());
    for (who, issuer, subject) in [
        ("alice", "https://id.example", "bob@example.com"),
        ("bob", "https://id.example", "alice@example.com"),
        ("alice", "https://id.example", "Alice@example.com"),
        ("alice", "https://id.example", "nobody"),
        ("alice", "https://other.example", "alice@example.com"),
        ("alice", "https://other.example", "bob"),
    ] {
        let refused = admit(who, issuer, subject).map(drop).unwrap_err();
        assert_eq!(refused, OperatorTokenError::OtherPerson, "{who} {issuer} {subject}");
    }
    // Not in the list: whoever's token it is, there is no person and no role.
    assert_eq!(admit("mallory", "https://id.example", "alice@example.com").unwrap().person(), None);
}

#[test]
fn ambiguous_and_unknown_lines_are_refused() {
    let change = |from: &str, to: &str| refused(&TEXT.replacen(from, to, 1));
    let alices = "spiffe://operators.example/operator/alice\n";
    for (from, to, why) in [
        ("v1", "v2", "operators line 1: must be `blindvault operators v1`"),
        ("instance: shop-1\n", "", "operators line 2: must be `instance: `"),
        ("shop-1", "Shop", "instance: must be 1 to 63"),
        ("version: 7", "version: x", "operators line 3: must be `version: `"),
        ("version: 7", "version: 0", "version: must be at least 1"),
        ("version: 7", "version: 07", "operators: people, and the lines of each"),
        ("version: 7", "version: +7", "operators: people, and the lines of each"),
        ("person: alice", "person: Alice", "people[0].id: must match"),
        ("person: bob", "person: alice", "people[1].id: another person has the same id"),
        ("person: alice", "person: zoe", "operators: people, and the lines of each"),
        ("spiffe://operators.example/operator/bob", alices.trim(), "people[1].certificates: is listed twice"),
        ("operator/alice-phone", "operator/alice", "people[0].certificates: is listed twice"),
        ("certificate: spiffe://operators.example/operator/bob\n", "", "people[1].certificates: must be 1 to 8"),
        ("spiffe://operators", "https://operators", "operators line 5: must be a SPIFFE ID"),
        ("bob@example.com", "alice@example.com", "people[1].tokens: is listed twice"),
        ("token: https://other.example bob", "token: https://other.example", "operators line 12: must be an issuer"),
        ("https://other.example bob", "https://other.example bob x", "people[1].tokens: must be an issuer"),
        ("roles: approver", "roles: root", "operators line 13: must be of approver"),
        ("roles: approver", "roles: Approver", "operators line 13: must be of approver"),
        ("roles: approver", "roles: approver approver", "operators line 13: names a role twice"),
        ("roles: approver", "roles: ", "operators line 13: must be of approver"),
        ("roles: author custodian", "roles: custodian author", "operators: people, and the lines of each"),
        ("roles: approver\n", "", "people[1].roles: must be at least one"),
        ("roles: approver\n", "roles: approver\nroles: viewer\n", "operators line 14: the person has a line"),
        ("roles: approver\n", "roles: approver\nadmin: true\n", "operators line 14: the keys are"),
        ("roles: approver\n", "roles: approver\n\n", "operators line 14: must be a key"),
        ("roles: approver\n", "roles: approver", "operators: the last line is not ended"),
        ("person: alice\n", "", "operators line 4: must be `person: `"),
    ] {
        let said = change(from, to);
        assert!(said.starts_with(why), "{from:?} to {to:?}: {said}");
    }
    assert!(refused("blindvault operators v1\ninstance: a\nversion: 1\n").starts_with("people: must be 1 to 500"));
    assert!(refused("blindvault operators v1\n").starts_with("operators: must be `instance: `"));
    assert!(refused(&TEXT.repeat(200)).starts_with("operators: the list is longer"));
}

#[test]
fn an_older_list_does_not_follow_a_newer_one() {
    let list = list();
    let with = |version| OperatorList::new("shop-1", version, list.people().to_vec()).unwrap();
    list.check_follows(None).unwrap();
    list.check_follows(Some(list.reference())).unwrap();
    with(8).check_follows(Some(list.reference())).unwrap();
    let refused = with(6).check_follows(Some(list.reference())).unwrap_err();
    assert!(matches!(&refused, Error::Invalid { field, why } if field == "version" && why.contains("old list")));
    let other = OperatorList::new("shop-1", 7, list.people()[..1].to_vec()).unwrap();
    let refused = other.check_follows(Some(list.reference())).unwrap_err();
    assert!(matches!(&refused, Error::Invalid { field, why } if field == "version" && why.contains("raise it")));
}

#[test]
fn changes_say_what_is_different_for_whom() {
    let before = list();
    let mut people = before.people().to_vec();
    people[0].roles = BTreeSet::from([Role::Author, Role::Approver]);
    people[0].certificates.pop();
    people.remove(1);
    let carol = SpiffeId::parse("spiffe://operators.example/operator/carol").unwrap();
    let person =
        Person { id: "carol".into(), certificates: vec![carol], tokens: Vec::new(), roles: [Role::Auditor].into() };
    people.push(person);
    let after = OperatorList::new("shop-1", 8, people).unwrap();
    let told: Vec<_> = before.changes(&after).iter().map(|change| (change.to_string(), change.widens())).collect();
    assert_eq!(
        told,
        [
            ("~ alice: roles +approver -custodian".to_owned(), true),
            ("~ alice: -spiffe://operators.example/operator/alice-phone".to_owned(), false),
            ("- bob".to_owned(), false),
            ("+ carol: auditor".to_owned(), true),
        ]
    );
    assert_eq!(before.changes(&before), []);
}

#[test]
fn names_of_refusals_are_distinct_from_those_of_certificates() {
    let ours = [
        OperatorTokenError::Missing,
        OperatorTokenError::Several,
        OperatorTokenError::Scheme,
        OperatorTokenError::SecondFactor,
        OperatorTokenError::SignInTime,
        OperatorTokenError::Stale,
        OperatorTokenError::OtherPerson,
        OperatorTokenError::Token(crate::principal::TokenError::Expired),
    ];
    let names: BTreeSet<_> = ours.iter().map(|rule| rule.name()).collect();
    assert_eq!(names.len(), ours.len());
    assert!(names.iter().all(|name| name.starts_with("token_")) && names.contains("token_expired"));
    assert_ne!(IdentityError::NotYetValid.name(), OperatorTokenError::Stale.name());
}
