//! A whole vault, with embedded store, keys, policies and audit log, answers every sequence of calls as a model of a few
//! lines does: nothing acknowledged is lost, nothing opens elsewhere, what is shredded stays so, also after it was closed
//! and opened again; and the log it leaves verifies.
#![no_main]

use blindvault_fuzz::bed::Bed;
use blindvault_fuzz::model::{Model, Op};
use libfuzzer_sys::fuzz_target;

/// Most calls of one input.
const MOST: usize = 24;

fuzz_target!(|ops: Vec<Op>| {
    let (bed, mut model) = (Bed::default(), Model::default());
    let mut vault = bed.open(bed.embedded(), bed.roots());
    for op in [Op::CreateTenant(0), Op::CreateDataset(0, 0)].iter().chain(ops.iter().take(MOST)) {
        if matches!(op, Op::Reopen) {
            vault.close().unwrap();
            vault = bed.open(bed.embedded(), bed.roots());
        }
        model.step(&bed, &vault, op);
    }
    vault.keys().evict_all();
    model.check_all(&bed, &vault);
    vault.close().unwrap();
    bed.check_log();
});
