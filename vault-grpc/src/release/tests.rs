use super::*;

// Made with minisign 0.11 for these tests; the secret key is gone.
const KEY: &str = "RWT+Qwtn4lWO7XW8IFJ2GAtvf99R6MmFTlPfcHClKJmXyWftQaxvVVMV";
const LIST: &str = "\
0000000000000000000000000000000000000000000000000000000000000001  vault-grpc\n\
0000000000000000000000000000000000000000000000000000000000000002  vault-grpc.cdx.json\n\
";
const GOOD: &str = "\
untrusted comment: signature from minisign secret key\n\
RUT+Qwtn4lWO7ae82fbfWxLLvHaWd3qPeREh/B8B+ULIDAFsXjyWle3d9jdj265ZkSbDd0IFqDBZP0ikqcL8tJ2kc2AEdA6A8wE=\n\
trusted comment: blindvault 0.1.0 x86_64-unknown-linux-gnu\n\
X8k2Xw0025pRIpLAp4R1E/F2w5eUvW/QAMF+DcUAIZAgONWouhOfL/Xe8jVpzDtZJgUh56s2KLkiIRHN6mYXCQ==\n\
";
// The older form, which signs the list itself; as `minisign -l` makes it.
const LEGACY: &str = "\
untrusted comment: signature from minisign secret key\n\
RWT+Qwtn4lWO7RdyJiUOLiXb5DsKokn/mXcTYJ6h0WY/Xi2yCgT3aESP2c5JK8hJyDCBlaCueBDDNPDqI0s49MfuE6XWd8mRzw8=\n\
trusted comment: blindvault 0.1.0 x86_64-unknown-linux-gnu\n\
yRwavmyr0r05OoGWw4OIIBR8P+LqYo7O8DsCz5Bxo9QolJL4ap7pGHRI1iPKb/XMt9CEMsMS3I3HnL1W0ssmCw==\n\
";
const OTHER_VERSION: &str = "\
untrusted comment: signature from minisign secret key\n\
RUT+Qwtn4lWO7ae82fbfWxLLvHaWd3qPeREh/B8B+ULIDAFsXjyWle3d9jdj265ZkSbDd0IFqDBZP0ikqcL8tJ2kc2AEdA6A8wE=\n\
trusted comment: blindvault 0.2.0 x86_64-unknown-linux-gnu\n\
tEek0NYvVyILmZtW1yLWLdTWGbxE4tAJjvJdDODNdJQpBnt68HyVXXuKP00VURUVfFmXdCpSfD4befk8GlwGCQ==\n\
";
const OTHER_PROJECT: &str = "\
untrusted comment: signature from minisign secret key\n\
RUT+Qwtn4lWO7ae82fbfWxLLvHaWd3qPeREh/B8B+ULIDAFsXjyWle3d9jdj265ZkSbDd0IFqDBZP0ikqcL8tJ2kc2AEdA6A8wE=\n\
trusted comment: gitvault 0.1.0 x\n\
ooE7TCuMPVYsKcSNEgXCjxhzJNlakHyKqMycCMV3+hc2xqPODZ5hC0KtY0rMWWTr/xOYrwSGQ2gQmrIM7lPoAw==\n\
";
const FOREIGN: &str = "\
untrusted comment: signature from minisign secret key\n\
RUS1EqSVtxkgs0/O0rWM9KK3gMQP/rfWtmqxVlcz8NOjo5WNn7Mg/wagCQ+t56z9m+EYJhTgslOXBLi8Kt0dnjZGKnUpb4kkWgU=\n\
trusted comment: blindvault 0.1.0 x86_64-unknown-linux-gnu\n\
4unTaWwJoLOyMr7UzuBERACnQ/bL4uJq+o0grAUnhJmC+djcQI/RIjcQFfCQQBb7/gDolM/rb5KKdEZfKMA6Dw==\n\
";

fn one() -> Fingerprint {
    let mut bytes = [0; 32];
    bytes[31] = 1;
    Fingerprint(bytes)
}

fn tried(list: &str, signature: &str, executable: Fingerprint) -> Result<(), NotReleased> {
    verify_texts(list, signature, &ReleaseKey::parse(KEY).unwrap(), executable, "0.1.0")
}

#[test]
fn what_minisign_signed_is_a_release() {
    assert_eq!(tried(LIST, GOOD, one()), Ok(()));
    // A key as the `.pub` file has it.
    let file = format!("untrusted comment: minisign public key\n{KEY}\n");
    let key = ReleaseKey::parse(&file).unwrap();
    assert_eq!(verify_texts(LIST, GOOD, &key, one(), "0.1.0"), Ok(()));
}

#[test]
fn what_was_altered_is_none() {
    assert_eq!(tried(LIST, GOOD, Fingerprint([0; 32])), Err(NotReleased::OtherExecutable));
    assert_eq!(tried(LIST, LEGACY, one()), Err(NotReleased::Signature));
    assert_eq!(tried(LIST, FOREIGN, one()), Err(NotReleased::Signature));
    assert_eq!(tried(LIST, OTHER_VERSION, one()), Err(NotReleased::OtherVersion));
    assert_eq!(tried(LIST, OTHER_PROJECT, one()), Err(NotReleased::OtherVersion));
    // The comment is signed as well, by the second signature.
    let renamed = OTHER_VERSION.replace("0.2.0", "0.1.0");
    assert_eq!(tried(LIST, &renamed, one()), Err(NotReleased::Signature));
    assert_eq!(tried(&LIST.replace("cdx", "cdy"), GOOD, one()), Err(NotReleased::Signature));
    // Every character of the list, and every line of the signature that is more than a remark.
    for at in 0..LIST.len() {
        let mut bytes = LIST.as_bytes().to_vec();
        bytes[at] ^= 1;
        assert_eq!(tried(std::str::from_utf8(&bytes).unwrap(), GOOD, one()), Err(NotReleased::Signature), "{at}");
    }
    for missing in 1..4 {
        let lines = GOOD.lines().enumerate().filter(|(n, _)| *n != missing).map(|(_, line)| format!("{line}\n"));
        assert!(tried(LIST, &lines.collect::<String>(), one()).is_err(), "without line {missing}");
    }
    for text in ["", "\n", "hello", &"A".repeat(300)] {
        assert_eq!(tried(LIST, text, one()), Err(NotReleased::Malformed), "{text}");
    }
}

#[test]
fn a_list_names_the_executable_once() {
    let digest = "ab".repeat(32);
    let line = format!("{digest}  vault-grpc\n");
    assert_eq!(listed(&line), Ok(digest.as_str()));
    let other = format!("{digest}  vault-grpc.cdx.json\n");
    for text in [String::new(), other.clone(), line.repeat(2), format!("{line}\n"), format!("{digest} vault-grpc\n")] {
        assert_eq!(listed(&text), Err(NotReleased::NotListed), "{text}");
    }
}

#[test]
fn keys_are_minisigns() {
    for text in ["", "RW", KEY.trim_start_matches("RW"), &format!("{KEY}{KEY}"), "-----BEGIN PUBLIC KEY-----"] {
        assert_eq!(ReleaseKey::parse(text), Err(NotReleased::Key), "{text}");
    }
}
