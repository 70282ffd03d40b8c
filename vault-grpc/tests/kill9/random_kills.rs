//! Kills at random moments.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use vault_client::Target;

use crate::acknowledged::{Acknowledged, DATASETS, WORKLOADS};
use crate::random::Random;
use crate::served::Served;
use crate::site::{Rows, Site};
use crate::writers::{self, Kill};

/// Killed after at most so many answers, and at most so many microseconds later.
const CALLS: usize = 120;
const MICROSECONDS: usize = 30_000;
/// Kills that one installation sees. Its log grows with each, and all of it is verified each time.
const KILLS_A_SITE: usize = 50;
/// With a database, one in so many kills is the database's.
const DATABASE_EVERY: usize = 5;
/// How long a gateway may take to find its database again.
const BACK: Duration = Duration::from_secs(60);

/// Whether this is no run of CI.
#[cfg(feature = "postgres")]
pub(crate) fn is_long() -> bool {
    std::env::var_os("BLINDVAULT_KILL_CYCLES").is_some()
}

/// `BLINDVAULT_KILL_CYCLES`, else what CI runs.
pub(crate) fn cycles(in_ci: usize) -> usize {
    std::env::var("BLINDVAULT_KILL_CYCLES").map_or(in_ci, |n| n.parse().unwrap())
}

/// What was seen, summed up.
#[derive(Debug, Default)]
struct Totals {
    kills: usize,
    of_database: usize,
    envelopes: usize,
    tenants: usize,
    /// Of tenant keys, begun.
    rotations: u32,
    asked: usize,
    shredded: usize,
    receipts: usize,
    starting: Duration,
    writing: Duration,
    checking: Duration,
    verifying: Duration,
}

/// Kills so many times, on fresh installations of a store; says what was there afterwards.
pub(crate) async fn kill(store: &str, kills: usize, rows: impl Fn() -> Rows) {
    let (mut random, seed) = Random::seeded();
    println!("{store}: BLINDVAULT_SEED={seed}");
    let mut totals = Totals::default();
    while totals.kills < kills {
        let here = KILLS_A_SITE.min(kills - totals.kills);
        on_one_site(&Site::new(rows(), &[]), here, &mut random, &mut totals).await;
    }
    let Totals { kills, of_database, envelopes, tenants, rotations, asked, shredded, receipts, .. } = totals;
    assert!(envelopes >= kills && tenants > 0 && rotations > 0 && shredded > 0, "hardly anything ran: {totals:?}");
    let each = |time: Duration| time.as_millis() / kills as u128;
    println!(
        "measured: {store}: {kills} kills ({of_database} of them of the database): {envelopes} envelopes and \
         {tenants} tenants acknowledged and all there; {rotations} rotations of tenant keys; {shredded} of {asked} subjects \
         shredded, none came back; {receipts} audit receipts, each in the log with its leaf hash, and in the mandatory sink"
    );
    assert!(receipts >= envelopes, "{receipts} receipts");
    println!(
        "measured: {store}: a cycle took {} ms to start, {} ms to write and be killed, {} ms to check, {} ms to verify the log",
        each(totals.starting),
        each(totals.writing),
        each(totals.checking),
        each(totals.verifying),
    );
}

async fn on_one_site(site: &Site, kills: usize, random: &mut Random, totals: &mut Totals) {
    let done = Arc::new(Acknowledged::default());
    let mut served = site.serve().await;
    let operator = &served.alice;
    for (_, tenant) in WORKLOADS {
        operator.create_tenant(tenant, None, "test").await.unwrap();
        for dataset in DATASETS {
            operator.create_dataset(tenant, dataset, "pii", "eu", "test").await.unwrap();
        }
    }
    for cycle in 0..kills {
        let (before, mark, known) = (done.calls(), done.mark(), done.receipts.lock().unwrap().len());
        let begun = Instant::now();
        let kill = Kill::new(site.has_database() && cycle % DATABASE_EVERY == DATABASE_EVERY - 1);
        let mut writers = writers::start(&served, cycle, (&done, &kill));
        // After some answers, and then at any moment of whatever is under way.
        done.reaches(before + 1 + u64::try_from(random.below(CALLS)).unwrap()).await;
        tokio::time::sleep(Duration::from_micros(u64::try_from(random.below(MICROSECONDS)).unwrap())).await;
        kill.begin();
        if kill.database {
            site.crash_database();
        } else {
            served.process.kill();
        }
        while let Some(writer) = writers.join_next().await {
            writer.unwrap();
        }
        totals.writing += begun.elapsed();
        let begun = Instant::now();
        if kill.database {
            // The gateway lives, and finds it again by itself.
            site.start_database();
            is_back(&served).await;
            totals.of_database += 1;
        } else {
            served = site.serve().await;
            // Each call left at least one entry before it was answered.
            let calls = done.calls();
            assert!(
                served.process.entries >= calls,
                "{calls} calls were answered, but {} entries are there",
                served.process.entries
            );
        }
        totals.starting += begun.elapsed();
        let begun = Instant::now();
        done.is_there(&served, random, mark).await;
        totals.checking += begun.elapsed();
        let begun = Instant::now();
        site.audit_verifies();
        let new = done.receipts.lock().unwrap().split_at(known).1.to_vec();
        let kept = site.dirs();
        spawn_blocking(move || kept.hold(&new)).await.unwrap();
        totals.verifying += begun.elapsed();
        totals.kills += 1;
    }
    totals.shredded += done.all_is_there(&served).await;
    for (_, tenant) in WORKLOADS {
        // The first version is no rotation's.
        totals.rotations += served.alice.get_tenant(tenant).await.unwrap().active_key_version - 1;
    }
    drop(served);
    site.audit_verifies();
    let receipts = done.receipts.lock().unwrap().clone();
    site.dirs().hold(&receipts);
    totals.receipts += receipts.len();
    totals.envelopes += done.writes.lock().unwrap().len();
    totals.tenants += done.tenants.lock().unwrap().len();
    totals.asked += done.shreds.lock().unwrap().len();
}

/// Waits until both planes answer: data calls wait besides until the revocation lease, which may have run out, is renewed.
async fn is_back(served: &Served) {
    let begun = Instant::now();
    let target = |tenant: &str| Target::new(tenant, DATASETS[0], "test");
    loop {
        let mut answers = vec![served.alice.get_tenant(WORKLOADS[0].1).await.map(drop)];
        for (client, (_, tenant)) in served.workloads.iter().zip(WORKLOADS) {
            answers.push(client.encrypt(&target(tenant), b"back").await.map(drop));
        }
        let Some(error) = answers.into_iter().find_map(Result::err) else { return };
        assert!(begun.elapsed() < BACK, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
