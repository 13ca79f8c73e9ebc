-- Names, codes and meanings are those of ../sqlite/0002_findings.sql.

ALTER TABLE credentials ADD COLUMN version BIGINT;
ALTER TABLE credentials ADD COLUMN environment TEXT;
ALTER TABLE credentials ADD COLUMN owner TEXT;

CREATE TABLE findings (
  tenant TEXT NOT NULL, key TEXT NOT NULL, phase SMALLINT NOT NULL, first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (tenant, key)
);
CREATE INDEX findings_unmatched ON findings (first_ms) WHERE phase = 0;
CREATE INDEX findings_old ON findings (last_ms) WHERE phase > 0;

CREATE TABLE waiting (
  tenant TEXT NOT NULL, fingerprint TEXT NOT NULL, key TEXT NOT NULL,
  PRIMARY KEY (tenant, fingerprint, key)
);

CREATE TABLE marks (
  tenant TEXT NOT NULL, fingerprint TEXT NOT NULL, credential TEXT NOT NULL, version BIGINT NOT NULL,
  PRIMARY KEY (tenant, fingerprint, credential, version)
);
CREATE INDEX marks_of ON marks (tenant, credential, version);
