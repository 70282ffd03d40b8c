-- What each gateway last confirmed: the epoch up to which it has wiped what was revoked, and when, sealed. Which
-- gateways there are is a row of blindvault_rows.
CREATE TABLE blindvault_gateways (
    id BYTEA NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    sealed BYTEA NOT NULL
);

-- Which gateway carries on the work on keys, and until when unless it says so again: one row.
CREATE TABLE blindvault_tending (
    id INTEGER NOT NULL PRIMARY KEY,
    holder BYTEA NOT NULL,
    until TIMESTAMPTZ NOT NULL
);
INSERT INTO blindvault_tending (id, holder, until) VALUES (1, '', CURRENT_TIMESTAMP);

-- For which epoch keys must be wiped is in `sealed` now, where nobody but a gateway can write it.
ALTER TABLE blindvault_changes DROP COLUMN keys_epoch;
