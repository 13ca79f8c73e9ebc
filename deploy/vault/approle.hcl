# AppRole secret_ids, by accessor, of the roles named here and no others: repeat the three blocks for each role. A
# glob in the place of the role would reach the secret_id that Curfew itself logs in with.
#
#   vault policy write curfew-approle deploy/vault/approle.hcl

path "auth/approle/role/ci-runner/secret-id-accessor/lookup" { capabilities = ["update"] }

# Destroying a secret_id is the fence: no new tokens come from it. The tokens it already gave live on; to end
# them as well, the realm of tokens.hcl is needed.
path "auth/approle/role/ci-runner/secret-id-accessor/destroy" { capabilities = ["update"] }

# Whether it gives batch tokens, which nobody can list or end. Without it the outcome says `derived_unknown`.
path "auth/approle/role/ci-runner" { capabilities = ["read"] }

path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
