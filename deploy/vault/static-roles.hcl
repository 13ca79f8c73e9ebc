# Static roles of the database engine that Curfew has rotated: those of the recipes named here and no others. Repeat the
# three blocks for each recipe; a glob would let Curfew rotate roles that nobody waits for. It goes on the login of the
# store (beside kv-store.hcl, where there are both).
#
#   vault policy write curfew-static-roles deploy/vault/static-roles.hcl

# Another password: made, set at the database and stored in this one call.
path "database/rotate-role/app" { capabilities = ["update"] }

# Whose it is, and when it was rotated last.
path "database/static-roles/app" { capabilities = ["read"] }

# The password: read before it goes, to see it refused, and after, to see that the new one works.
path "database/static-creds/app" { capabilities = ["read"] }

path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
