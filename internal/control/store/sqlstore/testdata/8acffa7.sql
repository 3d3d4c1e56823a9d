-- A store as commit 8acffa7 made it.
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
INSERT INTO keys VALUES ('shop', 'key_AAAAAAAAAAAAAAAA', 'first', 'restricted', 'live', '', 'deprecated', x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f', 'wXyZ', '', 1763000000, NULL, 1790000000, NULL, '', '{"scopes":["read"]}');
INSERT INTO keys VALUES ('shop', 'key_BBBBBBBBBBBBBBBB', 'second', 'secret', 'test', 'acme', 'active', x'100102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f', 'aBcD', '', 1763000001, NULL, NULL, NULL, 'key_AAAAAAAAAAAAAAAA', '{}');
INSERT INTO keys VALUES ('other', 'key_CCCCCCCCCCCCCCCC', 'third', 'secret', 'test', '', 'revoked', x'200102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f', 'eFgH', '', 1763000002, NULL, NULL, 1763000003, '', '{}');
INSERT INTO published VALUES ('shop', 1764000000000, 1763000000000, x'6e6f7465', x'0401');
