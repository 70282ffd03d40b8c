//! When a gateway is taken out of the directory that did not leave by itself: killed, or cut off for long.
//!
//! It says something every ten seconds at least. One that has said nothing for ten minutes is marked; one that was marked
//! and still says nothing goes. All of that by the clock of the one who looks, which no other can put back. A gateway
//! that finds itself marked wipes what it has and enters anew; it looks within half a minute of hearing of a change, else
//! its lease is not renewed, and no lease is longer than a minute: so whoever has keys in memory is in the directory.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::gateways::Directory;

/// After how long without a word a gateway is marked.
const SILENT: Duration = Duration::from_secs(600);
/// How long after that it goes: far longer than any lease, and the time in which a gateway looks for its mark.
const GONE: Duration = Duration::from_secs(240);

/// What a gateway last said, and since when we know it.
#[derive(Clone)]
pub(super) struct Silence {
    said: Vec<u8>,
    marked: bool,
    since: Instant,
}

/// The directory without those that are gone, and with the silent ones marked; `None` if it is as it must be. `rows` is
/// what each said last, `known` what was known of it before.
pub(super) fn tidied(
    directory: &Directory,
    rows: &HashMap<String, Vec<u8>>,
    known: &mut HashMap<String, Silence>,
    now: Instant,
) -> Option<Directory> {
    let mut tidy = directory.clone();
    known.retain(|id, _| directory.gateways.iter().any(|entry| entry.id == *id));
    tidy.gateways.retain_mut(|entry| {
        let (said, marked) = (rows.get(&entry.id).cloned().unwrap_or_default(), entry.silent);
        let news = Silence { said, marked, since: now };
        let silence = known.entry(entry.id.clone()).or_insert_with(|| news.clone());
        if silence.said != news.said || silence.marked != marked {
            *silence = news;
        }
        let quiet = now.saturating_duration_since(silence.since);
        entry.silent = marked || quiet >= SILENT;
        !marked || quiet < GONE
    });
    if tidy == *directory { None } else { Some(tidy) }
}

#[cfg(test)]
mod tests {
    use super::super::gateways::Entry;
    use super::*;

    #[test]
    fn who_says_nothing_is_marked_then_goes_and_who_speaks_stays() {
        let entry = |id: &str| Entry { id: id.into(), name: "x".into(), lease_ms: 1, joined: 1, silent: false };
        let mut directory = Directory { gateways: vec![entry("dead"), entry("alive"), entry("mute")] };
        let (begun, mut known) = (Instant::now(), HashMap::new());
        let ids = |directory: &Directory| -> Vec<(String, bool)> {
            directory.gateways.iter().map(|entry| (entry.id.clone(), entry.silent)).collect()
        };
        let named = |all: &[(&str, bool)]| -> Vec<(String, bool)> {
            all.iter().map(|(id, silent)| ((*id).to_owned(), *silent)).collect()
        };
        let mut at = |seconds: u64, directory: &mut Directory| {
            // The dead one spoke once; the mute one never did.
            let rows = [("dead".to_owned(), vec![1]), ("alive".to_owned(), seconds.to_be_bytes().to_vec())].into();
            if let Some(tidy) = tidied(directory, &rows, &mut known, begun + Duration::from_secs(seconds)) {
                *directory = tidy;
            }
            ids(directory)
        };
        let all = [("dead", false), ("alive", false), ("mute", false)];
        for seconds in [0, 10, 300, 599] {
            assert_eq!(at(seconds, &mut directory), named(&all), "{seconds}");
        }
        let marked = [("dead", true), ("alive", false), ("mute", true)];
        assert_eq!(at(600, &mut directory), named(&marked));
        // The time from when the mark is seen counts.
        assert_eq!(at(610, &mut directory), named(&marked));
        // One that enters anew is as any other.
        directory.gateways[2].silent = false;
        assert_eq!(at(800, &mut directory), named(&[("dead", true), ("alive", false), ("mute", false)]));
        assert_eq!(at(849, &mut directory), named(&[("dead", true), ("alive", false), ("mute", false)]));
        assert_eq!(at(850, &mut directory), named(&[("alive", false), ("mute", false)]));
    }

    /// A gateway that does not hear of its mark stops serving when its lease ends, and that comes before it goes.
    #[test]
    fn no_lease_outlasts_a_mark() {
        assert!(GONE > 2 * (Duration::from_secs(60) + super::super::gateways::DOUBT) && SILENT > GONE);
    }
}
