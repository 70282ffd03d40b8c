//! A configuration is refused with file and line, or keeps its bounds; whatever the text is, nothing panics.
#![no_main]

use std::path::Path;

use arbitrary::Arbitrary;
use blindvault_fuzz::change::{Change, changed_text};
use libfuzzer_sys::fuzz_target;
use vault_grpc::config::Config;

/// As `vault-grpc init` writes it, with more keys.
const GOOD: &str = include_str!("../data/vault.toml");

#[derive(Debug, Arbitrary)]
enum Line {
    Drop(u8),
    Repeat(u8, u8),
    Value(u8, Value),
    Add(u8, String),
}

#[derive(Debug, Arbitrary)]
enum Value {
    Number(i64),
    Word,
    Empty,
    Text(String),
    List,
    Raw(String),
}

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Text(&'a str),
    Lines(Vec<Line>),
    Bytes(Vec<Change>),
}

fn edited(lines: &[Line]) -> String {
    let mut text: Vec<String> = GOOD.lines().map(str::to_owned).collect();
    for line in lines.iter().take(4) {
        let len = text.len().max(1);
        let place = |at: &u8| usize::from(*at) % len;
        match line {
            Line::Drop(at) if text.len() > 1 => drop(text.remove(place(at))),
            Line::Repeat(from, to) => text.insert(place(to), text[place(from)].clone()),
            Line::Add(at, more) => text.insert(place(at), more.clone()),
            Line::Value(at, value) => {
                let key = text[place(at)].split('=').next().unwrap_or_default().to_owned();
                text[place(at)] = match value {
                    Value::Number(number) => format!("{key}= {number}"),
                    Value::Word => format!("{key}= \"word\""),
                    Value::Empty => format!("{key}= \"\""),
                    Value::Text(text) => format!("{key}= {text:?}"),
                    Value::List => format!("{key}= []"),
                    Value::Raw(raw) => format!("{key}= {raw}"),
                };
            }
            Line::Drop(_) => {}
        }
    }
    text.join("\n")
}

fn check(text: &str) {
    match Config::parse(text, Path::new("/etc/vault.toml")) {
        Ok(config) => {
            assert_ne!(config.data.trust_domain, config.control.trust_domain, "one domain for both planes");
            assert!(!config.instance.is_empty() && config.policy.quorum <= config.policy.signers.len().max(1));
            assert!((1000..=3_600_000).contains(&config.cache.ttl.as_millis()) && config.cache.capacity > 0);
        }
        Err(error) => {
            assert!(error.place().starts_with("/etc/vault.toml line ") && !error.why().is_empty(), "{error}");
        }
    }
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Text(text) => check(text),
    Input::Lines(lines) => check(&edited(&lines)),
    Input::Bytes(changes) => check(&changed_text(GOOD, &changes)),
});
