BEGIN TRANSACTION;
CREATE TABLE entries (sequence INTEGER PRIMARY KEY, body TEXT NOT NULL, digest BLOB NOT NULL) STRICT;
INSERT INTO "entries" VALUES(1,'{"format":1,"kind":"ledger","time":1795279745}',X'4D33C2A62B07F62421375B6AEEFF1768EA098414B8AABE3CBF231A1BD54918C0');
INSERT INTO "entries" VALUES(2,'{"dataset":"notes","examples":1000,"fingerprint":"abababababababababababababababababababababababababababababababab","kind":"dataset","time":1795279745}',X'1D62E537C682FA679E91BBBE2A346388F4C69E379A0430E508662066B69E5512');
INSERT INTO "entries" VALUES(3,'{"dataset":"notes","event":{"noise_multiplier":2.0,"sample_rate":0.1,"steps":10},"kind":"charge","round":1,"run":"run-1","time":1795279746}',X'BAF0171BF8AF19A0E5AD52FAF9B41250084CEE50C051978051F0201C11C31EEF');
CREATE TRIGGER no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END;
COMMIT;
