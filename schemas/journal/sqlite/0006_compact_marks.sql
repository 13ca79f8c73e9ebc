-- Marks are looked up by hashes as findings are: a third of the size, and the index by credential was never read.

-- name: digest16(tenant, fingerprint).
CREATE TABLE mark (
  name BLOB NOT NULL, credential TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (name, credential, version)
) WITHOUT ROWID, STRICT;
INSERT INTO mark SELECT digest16(tenant, fingerprint), credential, version FROM marks ORDER BY 1, 2, 3;
DROP TABLE marks;
ALTER TABLE mark RENAME TO marks;
