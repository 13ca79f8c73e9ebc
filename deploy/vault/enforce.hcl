# The enforcer: ends database leases, and looks at them before and after. No sudo, no list, no prefix or force
# revocation. One block per mount that Curfew may act on: put your own in place of database/creds.
#
#   vault policy write curfew-enforce deploy/vault/enforce.hcl

# The lease goes into the URL, and the body may hold `sync` and nothing else: a `lease_id` in the body would
# override the URL and reach every lease of every mount. Required and true, so that an answer never means "queued".
path "sys/leases/revoke/database/creds/*" {
  capabilities        = ["update"]
  allowed_parameters  = { "sync" = [true] }
  required_parameters = ["sync"]
}

# Is it gone? The look-up has no URL form; the value's glob keeps it to this mount.
path "sys/leases/lookup" {
  capabilities       = ["update"]
  allowed_parameters = { "lease_id" = ["database/creds/*"] }
}

# Its own token (in `default` as well, which this login can then do without): who am I, renew me, what may I
# do. The last one tells "we lack the right" from "this credential is dead", which look the same: 403.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
