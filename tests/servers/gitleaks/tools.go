//go:build tools

// Package gitleaks pins the scanner that tests/it/scanners.rs runs. Nothing is compiled from this file: it is why
// go.mod and go.sum hold what `go build github.com/zricethezav/gitleaks/v8` needs.
package gitleaks

import _ "github.com/zricethezav/gitleaks/v8"
