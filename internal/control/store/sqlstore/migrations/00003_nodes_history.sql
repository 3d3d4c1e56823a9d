-- +goose Up
ALTER TABLE published ADD COLUMN keys INTEGER NOT NULL DEFAULT 0;
ALTER TABLE published ADD COLUMN expires INTEGER NOT NULL DEFAULT 0;
-- The trees of a bundle, node by node. wanted_until is when edges cease to want a
-- node that the tree in force does not have, in Unix milliseconds.
CREATE TABLE nodes (
	bundle       TEXT NOT NULL,
	hash         BLOB NOT NULL,
	node         BLOB NOT NULL,
	wanted_until INTEGER,
	PRIMARY KEY (bundle, hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX nodes_wanted ON nodes (bundle, wanted_until);
CREATE TABLE history (
	bundle    TEXT NOT NULL,
	sequence  INTEGER NOT NULL,
	at        INTEGER NOT NULL,
	action    TEXT NOT NULL,
	key       TEXT NOT NULL,
	who       TEXT NOT NULL,
	came_from TEXT NOT NULL,
	detail    TEXT NOT NULL,
	PRIMARY KEY (bundle, sequence)
) STRICT;
CREATE INDEX history_key ON history (bundle, key, sequence);
-- +goose StatementBegin
CREATE TRIGGER history_stays BEFORE UPDATE ON history BEGIN
	SELECT raise(ABORT, 'the history is not changed');
END;
-- +goose StatementEnd
