# The store of rotations: KV version 2, the secrets of the recipes named here and no others. Repeat the five blocks
# for each recipe; a glob would let Curfew read and destroy secrets that it does not rotate.
#
# Where a recipe has copies, each of them needs the first three blocks, and no side path.
#
#   vault policy write curfew-kv-store deploy/vault/kv-store.hcl

# What consumers read. Curfew writes a new version over a known one, so it never needs `create`.
path "kv/data/app/database" { capabilities = ["read", "update"] }

# Which versions there are; no values.
path "kv/metadata/app/database" { capabilities = ["read"] }

# The old value, once it was seen dead. Cannot be taken back, and reaches each version of this one secret.
path "kv/destroy/app/database" { capabilities = ["update"] }

# Candidates, until they are promoted. Nobody else may read below curfew-pending: look that no consumer's glob
# (kv/data/*) does.
path "kv/data/curfew-pending/app/database" { capabilities = ["create", "read", "update"] }
path "kv/metadata/curfew-pending/app/database" { capabilities = ["create", "update", "delete"] }

path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
