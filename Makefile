# Plain `make` lists what there is. Every target can be run from a fresh clone: it installs what it needs,
# outside the clone (~/.cache/curfew, or $CURFEW_CACHE), and says so.

SERVERS := tests/servers/servers
# The same flags wherever the tests are compiled, so that nothing is compiled twice.
TESTS := --locked --features failpoints --lib --bins --tests
DIR ?= /tmp/curfew-servers-$(shell id -u)
PICTURES ?= /tmp/curfew-pictures-$(shell id -u)

.DEFAULT_GOAL := help
.PHONY: help demo test chaos check lint fuzz bench capacity pictures sbom servers clean-servers test-binaries test-servers

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## The pipeline on real Kafka, Vault and PostgreSQL (and moto for AWS): tasks end, their credentials die, and you watch
	@tests/demo/run

test: ## All tests, on real servers
	@$(SERVERS) install build
	@$(MAKE) --no-print-directory -j2 test-binaries test-servers
	@$(SERVERS) run -- cargo test $(TESTS) --no-fail-fast

# Side by side: servers are installed while Rust compiles.
test-binaries:
	@cargo test $(TESTS) --no-run
test-servers:
	@$(SERVERS) install

chaos: ## Ten minutes in which everything breaks (CURFEW_CHAOS_SECONDS=, CURFEW_CHAOS_SEED=)
	@$(SERVERS) install build
	@$(MAKE) --no-print-directory -j2 test-binaries test-servers
	@CURFEW_CHAOS_SECONDS=$${CURFEW_CHAOS_SECONDS:-600} \
	  cargo test -q --locked --features failpoints --test it chaos::whatever -- --nocapture

check: ## Format, clippy, docs, and the licences and bans of dependencies
	@$(SERVERS) install build
	cargo fmt --check
	cargo clippy --all-targets --all-features --locked -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --locked
	@$(SERVERS) exec cargo deny --all-features --locked check bans licenses sources

lint: check

# Without AddressSanitizer, which needs a nightly Rust: there is no unsafe code here that it could watch. What Curfew is
# built on is not optimized: that takes longer than the fuzzing.
fuzz: ## A minute of odd input for each decoder (FUZZ_SECONDS=, FUZZ_TARGETS="event answers")
	@$(SERVERS) install build fuzz
	@for target in $${FUZZ_TARGETS:-event gitleaks trufflehog gitlab github revocations openlineage cdevents tekton kubernetes a2a keys config answers audit}; do \
	  RUSTC_BOOTSTRAP=1 $(SERVERS) exec cargo fuzz run --dev -s none $$target $$(fuzz/seeds $$target) -- \
	    -max_total_time=$${FUZZ_SECONDS:-60} -max_len=8192 || exit; \
	done

bench: ## What Curfew costs, against the bare calls; writes target/bench.json
	@benches/run

capacity: ## What 10 k to 10 M credentials ask for, from target/bench.json (ARGS="--task-life 10m")
	@$(SERVERS) install build
	@cargo bench --locked --profile dev -q --bench capacity -- $(ARGS)

pictures: ## Each dashboard, drawn from a real run's Prometheus: SVGs in PICTURES=folder
	@$(SERVERS) install
	@CURFEW_PICTURES=$(PICTURES) $(SERVERS) run -- cargo test -q $(TESTS) watched::a_healthy_run -- --nocapture

sbom: ## What the binary is made of, as CycloneDX: target/curfew.cdx.json
	@$(SERVERS) install build sbom
	@$(SERVERS) exec cargo cyclonedx --quiet --format json --spec-version 1.5 --override-filename curfew.cdx
	@mkdir -p target && mv curfew.cdx.json target/

servers: ## Start Kafka, Vault, PostgreSQL and a kube-apiserver for your own use (DIR=folder below /tmp)
	@$(SERVERS) start $(DIR)
	@echo "Use them:   set -a; . $(DIR)/env; set +a"
	@echo "Stop them:  make clean-servers"

clean-servers: ## Stop them and delete their data
	@$(SERVERS) clean $(DIR)
