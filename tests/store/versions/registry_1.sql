BEGIN TRANSACTION;
CREATE TABLE incidents (
    sequence INTEGER PRIMARY KEY, time TEXT NOT NULL, member TEXT NOT NULL, code TEXT NOT NULL,
    message TEXT NOT NULL) STRICT;
INSERT INTO "incidents" VALUES(1,'2026-11-21T16:49:05+00:00','hospital-a','FEDFT-7033','example');
CREATE TABLE members (
    fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, signing_key TEXT NOT NULL,
    enrolled_at TEXT NOT NULL, expires_at TEXT NOT NULL, revoked_at TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '') STRICT;
INSERT INTO "members" VALUES('abababababababababababababababababababababababababababababababab','hospital-a','client','','2026-11-01T00:00:00+00:00','2027-12-01T00:00:00+00:00','','');
CREATE TABLE wanted (run TEXT PRIMARY KEY, wanted TEXT NOT NULL) STRICT;
INSERT INTO "wanted" VALUES('run-1','paused');
CREATE UNIQUE INDEX one_key_for_a_name ON members (name) WHERE revoked_at = '';
COMMIT;
