# One Vault on one disk, reached by loopback only (see docker-compose.yml). It starts sealed.
storage "file" { path = "/vault/file" }

listener "tcp" {
  address     = "0.0.0.0:8200"
  tls_disable = true
}

api_addr      = "http://127.0.0.1:8200"
disable_mlock = true
