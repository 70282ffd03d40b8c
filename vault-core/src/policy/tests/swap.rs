//! Replacing what is in force while decisions run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

fn named(id: &str) -> PolicySet {
    set(&format!("@id(\"{id}\") permit (principal, action, resource);"))
}

#[test]
fn a_file_that_does_not_load_leaves_the_old_in_force() {
    let authorizer = baseline();
    let replace = |policies: &str, text: &str| -> Result<u64, Error> {
        Ok(authorizer.swap(load(policies)?, Registry::parse(text, "prod.example")?))
    };
    let half = &BASELINE_POLICIES.text[..BASELINE_POLICIES.text.len() - 20];
    assert!(replace(half, REGISTRY).is_err());
    assert!(replace("", &REGISTRY[..REGISTRY.len() - 20]).is_err());
    assert_eq!(authorizer.epoch(), 1);
    assert!(data::<Decrypt>(&authorizer, BILLING, ask("acme")).is_ok());
    assert_eq!(replace("", REGISTRY), Ok(2));
    assert!(data::<Decrypt>(&authorizer, BILLING, ask("acme")).is_err());
}

#[test]
fn policies_and_registry_can_be_replaced_alone() {
    let authorizer = baseline();
    assert_eq!(authorizer.swap_registry(Registry::empty()), 2);
    assert!(data::<Decrypt>(&authorizer, BILLING, ask("acme")).is_err());
    assert_eq!(authorizer.swap_policies(named("x")), 3);
    assert!(data::<Decrypt>(&authorizer, BILLING, ask("acme")).is_err());
    assert_eq!(authorizer.swap_registry(registry(REGISTRY)), 4);
    let permit = data::<Decrypt>(&authorizer, BILLING, ask("acme")).unwrap();
    assert_eq!((permit.decision().epoch, &permit.decision().policies[..]), (4, &["x".to_owned()][..]));
}

/// Odd epochs have the policy `odd`, even ones `even`: a decision that mixes two epochs shows.
#[test]
fn a_decision_uses_one_epoch() {
    let authorizer = Authorizer::new(named("odd"), registry(REGISTRY));
    let (stop, decided) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut last = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let permit = data::<Decrypt>(&authorizer, BILLING, ask("acme")).unwrap();
                        let decision = permit.decision();
                        assert!(decision.epoch >= last, "epochs never go back");
                        last = decision.epoch;
                        let expected = if last % 2 == 1 { "odd" } else { "even" };
                        assert_eq!(decision.policies, [expected], "epoch {last}");
                        decided.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for epoch in 2..=60 {
            let before = decided.load(Ordering::Relaxed);
            let set = named(if epoch % 2 == 1 { "odd" } else { "even" });
            assert_eq!(authorizer.swap_policies(set), epoch);
            while decided.load(Ordering::Relaxed) < before + 3 && !threads.iter().any(|t| t.is_finished()) {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(authorizer.epoch(), 60);
}

/// Two writers at once: no epoch is given out twice.
#[test]
fn each_swap_has_its_own_epoch() {
    let authorizer = baseline();
    let mut epochs: Vec<u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..50).map(|_| authorizer.swap_registry(Registry::empty())).collect::<Vec<_>>()))
            .collect();
        writers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    epochs.sort_unstable();
    assert_eq!(epochs, (2..=201).collect::<Vec<_>>());
}
