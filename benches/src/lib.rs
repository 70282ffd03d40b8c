//! The benchmark suites live in `benches/`; this library only reads what criterion measured.

pub mod ratios;
