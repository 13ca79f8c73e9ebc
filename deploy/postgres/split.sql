-- Where a user that several agents share is split (`split` of a rotation): after deploy/postgres/reduce.sql, as a superuser, in
-- the database whose objects are meant:
--
--   psql -f deploy/postgres/split.sql

-- Up to PostgreSQL 15 the login of `reductions` makes the agents' users, without a password and without a login. It can then
-- alter every user that is no superuser: this login is worth a superuser's.
ALTER ROLE curfew_reduce CREATEROLE;

-- From 16 on a user belongs to who makes it, and Curfew's rotations could not alter it. So make each agent's user by hand, and leave
-- curfew_reduce as it was:
--
--   CREATE ROLE agent_planner;
--   GRANT agent_planner TO curfew WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;

-- To pass on what the shared user was granted it must act for the owner, of each schema that is meant, and be allowed to pass its
-- groups on (up to 15):
--
--   GRANT app_owner TO curfew_reduce;
--   GRANT readers TO curfew_reduce WITH ADMIN OPTION;
