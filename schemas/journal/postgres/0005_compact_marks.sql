-- Names and meanings are those of ../sqlite/0006_compact_marks.sql.

CREATE TABLE mark (
  name BYTEA NOT NULL, credential TEXT NOT NULL, version BIGINT NOT NULL, PRIMARY KEY (name, credential, version)
);
INSERT INTO mark
  SELECT substr(sha256(
    int8send(octet_length(tenant)) || convert_to(tenant, 'UTF8') ||
    int8send(octet_length(fingerprint)) || convert_to(fingerprint, 'UTF8')
  ), 1, 16), credential, version FROM marks ORDER BY 1, 2, 3;
DROP TABLE marks;
ALTER TABLE mark RENAME TO marks;
ALTER INDEX mark_pkey RENAME TO marks_pkey;
