# Whoever runs `curfew fingerprint-key --transit`: makes keys, and has them wrapped anew by a newer transit key. Never sees
# one: `datakey/plaintext` and `decrypt` are not here.
#
#   vault policy write curfew-fingerprint-transit-make deploy/vault/fingerprint-transit-make.hcl

path "transit/datakey/wrapped/curfew-fingerprint" { capabilities = ["update"] }

# `--rewrap`, after `vault write -f transit/keys/curfew-fingerprint/rotate`.
path "transit/rewrap/curfew-fingerprint" { capabilities = ["update"] }

path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
