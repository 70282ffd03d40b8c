-- Rows: sealed values under keys that name no person. `kind` is the name of a table of rows, `tenant` the first part of
-- the key, `changed` the epoch at which the row was last replaced, 0 if never.
CREATE TABLE blindvault_rows (
    kind TEXT NOT NULL,
    key BYTEA NOT NULL,
    version BIGINT NOT NULL,
    value BYTEA NOT NULL,
    tenant BYTEA NOT NULL,
    changed BIGINT NOT NULL,
    PRIMARY KEY (kind, key)
);
CREATE INDEX blindvault_rows_changed ON blindvault_rows (tenant, changed) WHERE changed > 0;

-- The key that seals them, under a custody of root keys.
CREATE TABLE blindvault_store_key (
    id INTEGER NOT NULL PRIMARY KEY,
    custody TEXT NOT NULL,
    wrapped BYTEA NOT NULL
);

-- The revocation epoch: one row. It grows, under its row's lock, with every commit that replaces rows. `sealed` binds
-- the chain of all changes and the epochs of all tenants to it.
CREATE TABLE blindvault_epoch (
    id INTEGER NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    sealed BYTEA
);
INSERT INTO blindvault_epoch (id, epoch) VALUES (1, 1);

-- The chain of changes: what each epoch changed, hashed.
CREATE TABLE blindvault_chain (
    epoch BIGINT NOT NULL PRIMARY KEY,
    digest BYTEA NOT NULL
);

-- Which tenants changed, and at which epoch last: their rows, and what their keys in memory must be wiped for. `sealed`
-- binds the versions of all replaced rows of the tenant to `rows_epoch`.
CREATE TABLE blindvault_changes (
    tenant BYTEA NOT NULL PRIMARY KEY,
    rows_epoch BIGINT NOT NULL,
    keys_epoch BIGINT NOT NULL,
    sealed BYTEA NOT NULL
);
CREATE INDEX blindvault_changes_by_epoch ON blindvault_changes (rows_epoch);
