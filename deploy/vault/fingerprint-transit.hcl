# The login that unwraps fingerprint keys (`fingerprint.transit`), where Vault's transit engine wrapped them: for the
# processes with the roles `serve` and `inventory`, and whoever runs `curfew publish finding`. It opens what the key file
# holds and nothing else: who has it and not the file learns nothing, and the other way round.
#
#   vault secrets enable transit
#   vault write -f transit/keys/curfew-fingerprint
#   vault policy write curfew-fingerprint-transit deploy/vault/fingerprint-transit.hcl

path "transit/decrypt/curfew-fingerprint" { capabilities = ["update"] }

path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
