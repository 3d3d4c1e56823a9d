-- +goose Up
-- The first store, which knew no migrations: so its tables may be there.
CREATE TABLE IF NOT EXISTS keys (
	bundle      TEXT NOT NULL,
	id          TEXT NOT NULL,
	name        TEXT NOT NULL,
	kind        TEXT NOT NULL,
	environment TEXT NOT NULL,
	tenant      TEXT NOT NULL,
	status      TEXT NOT NULL,
	digest      BLOB NOT NULL,
	hint        TEXT NOT NULL,
	public      TEXT NOT NULL,
	created     INTEGER NOT NULL,
	not_before  INTEGER,
	expires     INTEGER,
	revoked     INTEGER,
	replaces    TEXT NOT NULL,
	lists       TEXT NOT NULL,
	PRIMARY KEY (bundle, id),
	UNIQUE (bundle, digest)
) STRICT;
CREATE INDEX IF NOT EXISTS keys_created ON keys (bundle, created, id);
CREATE TABLE IF NOT EXISTS published (
	bundle         TEXT PRIMARY KEY,
	version        INTEGER NOT NULL,
	policy_version INTEGER NOT NULL,
	policy_note    BLOB NOT NULL,
	compiled       BLOB NOT NULL
) STRICT;
