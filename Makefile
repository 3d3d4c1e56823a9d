# Targets explain themselves: make help
export GOTOOLCHAIN := go1.26.9
GO    ?= go
CADDY := bin/caddy

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

.PHONY: run
run: build ## Run the demo: an HTTPS edge in front of five APIs
	$(GO) run ./internal/demo

.PHONY: build
build: ## Build bin/caddy with Keystile, by xcaddy
	@mkdir -p bin
	$(GO) tool xcaddy build $(shell cat xcaddy.txt) --output $(CADDY)

.PHONY: test
test: build ## Run everything: tests with -race, tables on core and Caddy, mutations
	$(GO) test -race ./...
	$(GO) test ./core -run TestEveryBitFlipped -args -every-bit
	$(GO) run ./internal/conformance -host core -mutate -coverage
	$(GO) run ./internal/conformance -host caddy -mutate
	$(GO) run ./internal/mutation

.PHONY: check
check: ## Check format, vet, staticcheck, go.mod, imports and that the tree is clean
	@out=$$(gofmt -l .); test -z "$$out" || { echo "format these with gofmt -w:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	GOOS=wasip1 GOARCH=wasm $(GO) build ./core/...
	$(GO) test -run 'TestDependencies|TestNobodyImportsTheRoot|TestPackageDocs' . ./core
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff
	$(GO) mod verify
	@test -z "$$(git status --porcelain)" || { echo "commit or remove these first:"; git status --short; exit 1; }

.PHONY: vuln
vuln: ## Look for known vulnerabilities (needs the public database)
	$(GO) tool govulncheck ./...

.PHONY: bench
bench: build ## Measure core and Caddy (up to 15 minutes)
	$(GO) test -run '^$$' -bench . -benchtime 2s ./core/...
	$(GO) run ./internal/bench/bundle
	$(GO) run ./internal/bench/caddy

.PHONY: clean
clean: ## Remove what was built, and the demo's keys
	rm -rf bin var
