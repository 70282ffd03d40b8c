-- Rows: sealed values under keys that name no person. `kind` is the name of a table of rows.
CREATE TABLE blindvault_rows (
    kind TEXT NOT NULL,
    key BYTEA NOT NULL,
    version BIGINT NOT NULL,
    value BYTEA NOT NULL,
    PRIMARY KEY (kind, key)
);

-- The key that seals them, wrapped by a root key.
CREATE TABLE blindvault_store_key (
    id INTEGER NOT NULL PRIMARY KEY,
    root TEXT NOT NULL,
    wrapped BYTEA NOT NULL
);

-- The revocation epoch: one row. It grows, under its row's lock, with every commit that replaces rows.
CREATE TABLE blindvault_epoch (
    id INTEGER NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL
);
INSERT INTO blindvault_epoch (id, epoch) VALUES (1, 1);

-- Which tenants changed, and at which epoch last: their rows, and what their keys in memory must be wiped for.
CREATE TABLE blindvault_changes (
    tenant BYTEA NOT NULL PRIMARY KEY,
    rows_epoch BIGINT NOT NULL,
    keys_epoch BIGINT NOT NULL
);
CREATE INDEX blindvault_changes_by_epoch ON blindvault_changes (rows_epoch);
