//! Criterion suites, each with its reference beside it (`benches/`), and the tools that read their results (`src/bin/`).
