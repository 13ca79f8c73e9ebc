-- Where a user that several agents share is split (`split` of a rotation): after deploy/postgres/reduce.sql, as a superuser, in
-- the database whose objects are meant:
--
--   psql -f deploy/postgres/split.sql
--
-- To pass on what the shared user was granted it acts for the owner of each schema that is meant, and may pass its groups on, as
-- is said there.

-- To make the agents' users, without a password and without a login. Up to PostgreSQL 15 it can then alter every user that is no
-- superuser: this login is worth a superuser's. From 16 on it can alter those that it made; and whoever may alter the shared user
-- (curfew, by deploy/postgres/curfew-16.sql) is given the same of each new one.
ALTER ROLE curfew_reduce CREATEROLE;

-- Where it is to make none, leave that out, and make each agent's user by hand.

-- From PostgreSQL 16 on with what the login of rotations needs to alter it:
--
--   CREATE ROLE agent_planner;
--   GRANT agent_planner TO curfew WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
