-- Findings are looked up by hashes, so each of a batch lies on a page of its own: the smaller the entries, the fewer pages.
-- digest16: the first 16 bytes of SHA-256 over its arguments, each with its length; Curfew gives it to SQLite.

-- name: digest16(tenant, key).
CREATE TABLE found (
  id INTEGER PRIMARY KEY, name BLOB NOT NULL,
  tenant TEXT NOT NULL, key TEXT NOT NULL, phase INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;
INSERT INTO found (name, tenant, key, phase, first_ms, last_ms, body)
  SELECT digest16(tenant, key), tenant, key, phase, first_ms, last_ms, body FROM findings ORDER BY first_ms;
CREATE UNIQUE INDEX found_name ON found (name);

-- name: digest16(tenant, fingerprint). Two fingerprints of one name would only be looked at in vain.
CREATE TABLE waits (
  name BLOB NOT NULL, finding INTEGER NOT NULL, PRIMARY KEY (name, finding)
) WITHOUT ROWID, STRICT;
INSERT INTO waits
  SELECT digest16(w.tenant, w.fingerprint), f.id FROM waiting w JOIN found f ON f.name = digest16(w.tenant, w.key)
  ORDER BY 1, 2;

DROP TABLE waiting;
DROP TABLE findings;
ALTER TABLE found RENAME TO findings;
ALTER TABLE waits RENAME TO waiting;
CREATE INDEX findings_unmatched ON findings (first_ms) WHERE phase = 0;
CREATE INDEX findings_old ON findings (last_ms) WHERE phase > 0;
