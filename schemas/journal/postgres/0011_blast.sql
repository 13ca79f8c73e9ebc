-- Names and meanings are those of ../sqlite/0012_blast.sql.
ALTER TABLE credentials ADD COLUMN blast BIGINT;

UPDATE cases SET urgency = urgency * 4 WHERE closed_ms IS NULL;

CREATE INDEX findings_reach ON findings (last_ms, key COLLATE "C") WHERE phase = 1 AND substr(key, 1, 6) = 'reach:';
