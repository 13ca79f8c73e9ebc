-- Names and meanings are those of ../sqlite/0008_watched.sql.

CREATE INDEX cases_watched ON cases (
  (CASE WHEN hold IS NOT NULL THEN 2 WHEN state IN ('in_doubt', 'retrying', 'abandoned') THEN 0 ELSE 1 END), urgency, opened_ms, id
) WHERE closed_ms IS NULL;
