//! What the user of the old value may do and the user of the new one may not: seen before anything is promoted.
//!
//! Two users that take turns drift apart: a grant to one of them alone, a table that one of them made. Compared is what
//! the catalogs say, so it is bounded by what the old user has, and only by what the connected database shows: grants and
//! objects in other databases of the same server are not seen. A right that comes by a role which the new user inherits,
//! or from PUBLIC, is as good as one of its own. A member of the old user lacks nothing that the old user owns.

use sqlx::{AssertSqlSafe, Error, PgPool};

/// Objects on which the old user was granted something, from the dependencies that PostgreSQL keeps of each role, so no
/// catalog is read as a whole; then each single right.
const GRANTS: &str = "\
    dep AS (SELECT d.classid, d.objid, d.objsubid, d.deptype FROM pg_shdepend d, pair \
        WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = pair.old \
        AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))), \
    acls AS (\
        SELECT 'tables' AS kind, c.tableoid AS classid, c.oid AS objid, 0 AS subid, c.relowner AS owner, c.relacl AS acl \
            FROM pg_class c WHERE c.oid IN (SELECT objid FROM dep WHERE classid = 'pg_class'::regclass AND deptype = 'a') \
        UNION ALL SELECT 'columns', c.tableoid, c.oid, a.attnum, c.relowner, a.attacl \
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attacl IS NOT NULL \
            WHERE c.oid IN (SELECT objid FROM dep WHERE classid = 'pg_class'::regclass AND deptype = 'a') \
        UNION ALL SELECT 'schemas', tableoid, oid, 0, nspowner, nspacl \
            FROM pg_namespace WHERE oid IN (SELECT objid FROM dep WHERE classid = 'pg_namespace'::regclass) \
        UNION ALL SELECT 'databases', tableoid, oid, 0, datdba, datacl \
            FROM pg_database WHERE oid IN (SELECT objid FROM dep WHERE classid = 'pg_database'::regclass) \
        UNION ALL SELECT 'functions', tableoid, oid, 0, proowner, proacl \
            FROM pg_proc WHERE oid IN (SELECT objid FROM dep WHERE classid = 'pg_proc'::regclass) \
        UNION ALL SELECT 'types', tableoid, oid, 0, typowner, typacl \
            FROM pg_type WHERE oid IN (SELECT objid FROM dep WHERE classid = 'pg_type'::regclass) \
        UNION ALL SELECT 'languages', tableoid, oid, 0, lanowner, lanacl \
            FROM pg_language WHERE oid IN (SELECT objid FROM dep WHERE classid = 'pg_language'::regclass) \
        UNION ALL SELECT 'large objects', tableoid, oid, 0, lomowner, lomacl \
            FROM pg_largeobject_metadata WHERE oid IN (SELECT objid FROM dep WHERE classid = 'pg_largeobject'::regclass) \
        UNION ALL SELECT 'foreign data', tableoid, oid, 0, fdwowner, fdwacl FROM pg_foreign_data_wrapper \
            WHERE oid IN (SELECT objid FROM dep WHERE classid = 'pg_foreign_data_wrapper'::regclass) \
        UNION ALL SELECT 'foreign data', tableoid, oid, 0, srvowner, srvacl \
            FROM pg_foreign_server WHERE oid IN (SELECT objid FROM dep WHERE classid = 'pg_foreign_server'::regclass) \
        UNION ALL SELECT 'tablespaces', tableoid, oid, 0, spcowner, spcacl \
            FROM pg_tablespace WHERE oid IN (SELECT objid FROM dep WHERE classid = 'pg_tablespace'::regclass) \
        UNION ALL SELECT 'default privileges', tableoid, oid, 0, 0, defaclacl \
            FROM pg_default_acl WHERE oid IN \
            (SELECT objid FROM dep WHERE classid = 'pg_default_acl'::regclass AND deptype = 'a')), \
    rights AS (SELECT a.kind, a.classid, a.objid, a.subid, a.owner, e.grantee, e.privilege_type, e.is_grantable \
        FROM acls a, aclexplode(a.acl) e), \
    has AS (SELECT r.* FROM rights r, pair WHERE r.grantee = 0 OR pg_has_role(pair.new, r.grantee, 'USAGE'))";

/// What is lacking, by kind.
const LACKS: &str = "\
    SELECT 'grants on ' || r.kind, count(*) FROM rights r, pair WHERE r.grantee = pair.old \
        AND NOT EXISTS (SELECT 1 FROM has h WHERE h.classid = r.classid AND h.objid = r.objid \
            AND h.privilege_type = r.privilege_type AND h.subid IN (0, r.subid) AND h.is_grantable >= r.is_grantable) \
        AND NOT (r.owner <> 0 AND pg_has_role(pair.new, r.owner, 'USAGE')) GROUP BY r.kind \
    UNION ALL SELECT 'owned objects', count(*) FROM dep d CROSS JOIN pair \
        LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid \
        WHERE d.deptype = 'o' AND d.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass) \
        AND c.relpersistence IS DISTINCT FROM 't' AND NOT pg_has_role(pair.new, pair.old, 'USAGE') \
    UNION ALL SELECT 'default privileges', count(*) \
        FROM pair JOIN pg_default_acl o ON o.defaclrole = pair.old, aclexplode(o.defaclacl) e \
        WHERE e.grantee <> pair.old AND NOT (e.grantee = 0 AND o.defaclobjtype IN ('f', 'T')) \
        AND NOT EXISTS (SELECT 1 FROM pg_default_acl n, aclexplode(n.defaclacl) f WHERE n.defaclrole = pair.new \
            AND n.defaclnamespace = o.defaclnamespace AND n.defaclobjtype = o.defaclobjtype \
            AND f.grantee IN (e.grantee, 0) AND f.privilege_type = e.privilege_type AND f.is_grantable >= e.is_grantable) \
    UNION ALL SELECT 'row policies', count(*) FROM pg_policy p, pair WHERE pair.old = ANY (p.polroles) \
        AND NOT EXISTS (SELECT 1 FROM unnest(p.polroles) u WHERE u = 0 OR pg_has_role(pair.new, u, 'USAGE')) \
    UNION ALL SELECT 'user mappings', count(*) FROM pg_user_mappings m, pair WHERE m.umuser = pair.old \
        AND NOT EXISTS (SELECT 1 FROM pg_user_mappings n WHERE n.srvid = m.srvid AND n.umuser IN (0, pair.new)) \
    UNION ALL SELECT 'memberships', count(*) FROM pg_roles r, pair WHERE r.oid NOT IN (pair.old, pair.new) \
        AND pg_has_role(pair.old, r.oid, 'MEMBER') AND (NOT pg_has_role(pair.new, r.oid, 'MEMBER') \
            OR (pg_has_role(pair.old, r.oid, 'USAGE') AND NOT pg_has_role(pair.new, r.oid, 'USAGE')) \
            OR (pg_has_role(pair.old, r.oid, 'MEMBER WITH ADMIN OPTION') \
                AND NOT pg_has_role(pair.new, r.oid, 'MEMBER WITH ADMIN OPTION')) \
            OR CASE WHEN current_setting('server_version_num')::int >= 160000 \
                THEN pg_has_role(pair.old, r.oid, 'SET') AND NOT pg_has_role(pair.new, r.oid, 'SET') ELSE false END) \
    UNION ALL SELECT 'attributes', ((o.rolinherit AND NOT n.rolinherit)::int + (o.rolcreatedb AND NOT n.rolcreatedb)::int \
        + (o.rolcreaterole AND NOT n.rolcreaterole)::int + (o.rolreplication AND NOT n.rolreplication)::int \
        + (o.rolbypassrls AND NOT n.rolbypassrls)::int \
        + (n.rolconnlimit >= 0 AND (o.rolconnlimit < 0 OR n.rolconnlimit < o.rolconnlimit))::int \
        + (coalesce(n.rolvaliduntil, 'infinity') < coalesce(o.rolvaliduntil, 'infinity'))::int)::bigint \
        FROM pair JOIN pg_roles o ON o.oid = pair.old JOIN pg_roles n ON n.oid = pair.new";

/// Settings of the role, for all databases and for each: one that only the new user has changes what it does as well.
const SETTINGS: &str = "\
    SELECT 'settings', count(*) FROM (SELECT s.setdatabase, c FROM pair, pg_db_role_setting s, unnest(s.setconfig) c \
        WHERE s.setrole = pair.old) o FULL JOIN (SELECT s.setdatabase, c FROM pair, pg_db_role_setting s, \
        unnest(s.setconfig) c WHERE s.setrole = pair.new) n ON n.setdatabase = o.setdatabase AND n.c = o.c \
        WHERE o.c IS NULL OR n.c IS NULL";

/// Grants on server settings: there are such from PostgreSQL 15 on.
const PARAMETERS: &str = "\
    SELECT 'grants on server settings', count(*) FROM pair, pg_parameter_acl p, aclexplode(p.paracl) e \
        WHERE e.grantee = pair.old AND NOT EXISTS (SELECT 1 FROM aclexplode(p.paracl) f \
        WHERE f.privilege_type = e.privilege_type AND f.is_grantable >= e.is_grantable \
        AND (f.grantee = 0 OR pg_has_role(pair.new, f.grantee, 'USAGE')))";

/// How much of each kind the role `new` lacks of what `old` has; empty: nothing. Both are OIDs. `version` is the
/// server's, as in `server_version_num`.
///
/// # Errors
/// Of the database.
pub(super) async fn lacking(pool: &PgPool, version: i32, old: i64, new: i64) -> Result<Vec<(String, i64)>, Error> {
    let parameters = if version >= 150_000 { format!(" UNION ALL {PARAMETERS}") } else { String::new() };
    let sql = format!(
        "WITH pair AS (SELECT $1::bigint::oid AS old, $2::bigint::oid AS new), {GRANTS}, \
         all_of_it(what, lacks) AS ({LACKS} UNION ALL {SETTINGS}{parameters}) \
         SELECT what, lacks FROM all_of_it WHERE lacks > 0 ORDER BY what"
    );
    sqlx::query_as(AssertSqlSafe(sql)).bind(old).bind(new).fetch_all(pool).await
}

/// What is lacking, for people: kinds and counts, no names.
pub(super) fn told(lacking: &[(String, i64)]) -> String {
    let each: Vec<String> = lacking.iter().map(|(what, lacks)| format!("{what}: {lacks}")).collect();
    format!("the new user lacks what the old one has ({})", each.join(", "))
}
