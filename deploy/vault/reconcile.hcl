# Reconcile compares what Vault still holds with what Curfew knows. It reads and never revokes: give it its own
# login, not the enforcer's. Vault wants sudo for both lists; it is given on exactly these paths.
#
#   vault policy write curfew-reconcile deploy/vault/reconcile.hcl

# The lease ids below one mount, and of no other.
path "sys/leases/lookup/database/creds/*" { capabilities = ["list", "sudo"] }

# When one was issued and when it ends.
path "sys/leases/lookup" {
  capabilities       = ["update"]
  allowed_parameters = { "lease_id" = ["database/creds/*"] }
}

# The accessors of all tokens (no prefix can narrow this list), and the metadata that names a token's task. An
# accessor cannot be used to log in; whoever may also call revoke-accessor could end every one of them.
path "auth/token/accessors/" { capabilities = ["list", "sudo"] }
path "auth/token/lookup-accessor" { capabilities = ["update"] }

path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
