-- Curfew's own role at a PostgreSQL whose users it rotates: 16 and later. As a superuser, in any database:
--
--   psql -f deploy/postgres/curfew-16.sql
--   \password curfew        (so that the value is in no file and in no log)

-- From 16 on CREATEROLE alone reaches nobody: only users of which it has the ADMIN option, given below.
CREATE ROLE curfew LOGIN CREATEROLE CONNECTION LIMIT 20;

-- One line for the users of each recipe. Neither their rights, nor to become them.
GRANT app_a, app_b TO curfew WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;

-- To end sessions of the old value: never a superuser's.
GRANT pg_signal_backend TO curfew WITH INHERIT TRUE, SET FALSE;

-- To see when a session began. Without it sessions of a single user are reported, not ended.
GRANT pg_read_all_stats TO curfew WITH INHERIT TRUE, SET FALSE;
