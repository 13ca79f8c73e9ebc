# The reader of the inventory: which secrets there are and, as keyed fingerprints, what they hold. It reads and never
# writes: give it its own login. It reads values, so it gets only the paths that are opted in.
#
#   vault policy write curfew-kv-inventory deploy/vault/kv-inventory.hcl

# Names below a folder, and the versions of each; no values.
path "kv/metadata/app/*" { capabilities = ["list", "read"] }

# The values. They are hashed in memory and dropped.
path "kv/data/app/*" { capabilities = ["read"] }

# The passwords of static roles, and when each was rotated last: only where the inventory names `static_roles`.
path "database/static-roles/app" { capabilities = ["read"] }
path "database/static-creds/app" { capabilities = ["read"] }

path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
