-- Open cases in the order in which people look at them: those of which nobody can say whether they are dead, those at work, those
-- that are held; in each the most urgent first, then the oldest. A page of them is read without the rest.
CREATE INDEX cases_watched ON cases (
  (CASE WHEN hold IS NOT NULL THEN 2 WHEN state IN ('in_doubt', 'retrying', 'abandoned') THEN 0 ELSE 1 END), urgency, opened_ms, id
) WHERE closed_ms IS NULL;
