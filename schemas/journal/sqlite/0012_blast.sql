-- How much a credential opens, as reach measured it last: each target with the weight of its zone. NULL: not known.
ALTER TABLE credentials ADD COLUMN blast INTEGER;

-- An open case's place among others is its urgency (0 to 3) times 4, and the order of magnitude of its credential's blast radius (0 to 3).
UPDATE cases SET urgency = urgency * 4 WHERE closed_ms IS NULL;

-- What is asked of the closed cases of one credential, and of Curfew's own findings, is not to go through all of them.
CREATE INDEX cases_about ON cases (credential) WHERE closed_ms IS NOT NULL;
CREATE INDEX findings_reach ON findings (last_ms, key) WHERE phase = 1 AND substr(key, 1, 6) = 'reach:';
