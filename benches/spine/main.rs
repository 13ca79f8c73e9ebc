//! What the spine costs: each measure interleaved with a bare baseline in the same run, durability on.
//!
//! Prints one table and writes `target/bench.json`. `benches/README.md` explains the rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod catchup;
mod claims;
mod deadlines;
mod exec;
mod fetch;
mod found;
mod hang;
mod intake;
mod known;
mod latency;
mod lineage;
mod naive;
mod pgintake;
mod quota;
mod restart;
mod revoke;
mod rotate;
mod schema;
mod table;
mod toy;
mod usage;

// What the tests have for the same servers.
#[path = "../../tests/it/admin.rs"]
mod admin;
#[path = "../../tests/it/stage.rs"]
mod stage;
#[path = "../../tests/it/store.rs"]
mod store;
#[path = "../../tests/it/world.rs"]
mod world;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("nothing is installed before");
    // Cargo passes `--bench`; any other word selects measures by name.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Ok(what) = std::env::var(catchup::PRODUCE) {
        return runtime.block_on(catchup::produce(&what));
    }
    let mut table = table::Table::default();
    if is_wanted("intake") {
        runtime.block_on(intake::measure(&mut table));
    }
    if is_wanted("fetch") {
        runtime.block_on(fetch::measure(&mut table));
    }
    if is_wanted("revoke") {
        runtime.block_on(revoke::measure(&mut table));
    }
    if is_wanted("rotate") {
        runtime.block_on(rotate::measure(&mut table));
    }
    if is_wanted("quota") {
        runtime.block_on(quota::measure(&mut table));
    }
    if is_wanted("found") {
        runtime.block_on(found::measure(&mut table));
    }
    if is_wanted("match") {
        runtime.block_on(found::matches(&mut table));
    }
    if is_wanted("latency") {
        runtime.block_on(latency::measure(&mut table));
    }
    if is_wanted("naive") {
        runtime.block_on(naive::measure(&mut table));
    }
    if is_wanted("restart") {
        runtime.block_on(restart::measure(&mut table));
    }
    if is_wanted("claims") {
        runtime.block_on(claims::measure(&mut table));
    }
    if is_wanted("hang") {
        runtime.block_on(hang::measure(&mut table));
    }
    if is_wanted("deadlines") {
        runtime.block_on(deadlines::measure(&mut table));
    }
    if is_wanted("pgintake") {
        runtime.block_on(pgintake::measure(&mut table));
    }
    if is_wanted("known") {
        runtime.block_on(known::measure(&mut table));
    }
    if is_wanted("catchup") {
        runtime.block_on(catchup::measure(&mut table));
    }
    if is_wanted("lineage") {
        lineage::measure(&mut table);
    }
    if is_wanted("exec") {
        runtime.block_on(exec::measure(&mut table));
    }
    table.print_and_save();
}
