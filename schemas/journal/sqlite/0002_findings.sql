-- Findings, and the marks by which they are matched. Finding phase: 0 unmatched 1 matched 2 closed 3 ignored.

ALTER TABLE credentials ADD COLUMN version INTEGER;
ALTER TABLE credentials ADD COLUMN environment TEXT;
ALTER TABLE credentials ADD COLUMN owner TEXT;

-- key: `<topic>:<the scanner's key>`. body: the finding as JSON; no secret in it. Keys are hashes, and rows are long: in the
-- order of their arrival a batch of them fills pages, in that of their keys it would touch one for each.
CREATE TABLE findings (
  tenant TEXT NOT NULL, key TEXT NOT NULL, phase INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (tenant, key)
) STRICT;
CREATE INDEX findings_unmatched ON findings (first_ms) WHERE phase = 0;
CREATE INDEX findings_old ON findings (last_ms) WHERE phase > 0;

-- Unmatched findings by fingerprint: what the inventory learns later finds them here.
CREATE TABLE waiting (
  tenant TEXT NOT NULL, fingerprint TEXT NOT NULL, key TEXT NOT NULL,
  PRIMARY KEY (tenant, fingerprint, key)
) WITHOUT ROWID, STRICT;

-- Whose value has this keyed fingerprint; version 0: its issuer has none.
CREATE TABLE marks (
  tenant TEXT NOT NULL, fingerprint TEXT NOT NULL, credential TEXT NOT NULL, version INTEGER NOT NULL,
  PRIMARY KEY (tenant, fingerprint, credential, version)
) WITHOUT ROWID, STRICT;
CREATE INDEX marks_of ON marks (tenant, credential, version);
