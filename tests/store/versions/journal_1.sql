BEGIN TRANSACTION;
CREATE TABLE replies (
    sequence INTEGER PRIMARY KEY, run TEXT NOT NULL, round INTEGER NOT NULL, kind TEXT NOT NULL,
    fingerprint TEXT NOT NULL, reply BLOB NOT NULL, UNIQUE (run, round, kind, fingerprint)) STRICT;
INSERT INTO "replies" VALUES(1,'run-1',1,'train','ff',X'00');
COMMIT;
