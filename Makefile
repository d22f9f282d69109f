# The commands of the house. `make` alone lists them.
#
# Everything that is written goes to build/ (ignored by git); clusters keep
# their state where `go run ./e2e/cluster/cmd/cluster list` says.

GO         ?= go
BUILD      := build
BIN        := $(BUILD)/bin
IMAGE_REPO ?=
IMAGE_TAG  ?= dev
PKGS       ?= ./...
VERSION    ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS    := -s -w -X main.version=$(VERSION)
GOFILES     = $(shell git ls-files -co --exclude-standard '*.go')

# The definitions that the ambit command embeds; the modules istio.io/api and
# sigs.k8s.io/gateway-api of go.mod are their only sources.
CRDS := $(addprefix manifests/crd/files/,istio.gen.yaml gateway-standard.gen.yaml gateway-experimental.gen.yaml)

.DEFAULT_GOAL := help
.PHONY: help demo down preflight check fmt vet unit test e2e soak sabotage bench fuzz conformance images manifests gen tools clean FORCE

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9_-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- the main job ---------------------------------------------------------

demo: tools ## the mesh at work: a two-node cluster, a shop, encryption and policy shown and checked
	@$(GO) run ./e2e/cmd/demo

down: ## remove every trace of every cluster we made (caches stay until clean)
	@$(GO) run ./e2e/cluster/cmd/cluster down --all

# --- proof ----------------------------------------------------------------

check: fmt vet unit ## format, vet, unit tests with the race detector, golden scenarios

fmt:
	@echo "== gofmt"
	@bad=$$(gofmt -l $(GOFILES)); if [ -n "$$bad" ]; then echo "not formatted (run gofmt -w on them):"; echo "$$bad"; exit 1; fi

vet: $(CRDS)
	@echo "== go vet"
	@$(GO) vet $(PKGS)
	@$(GO) vet -tags e2e ./e2e/suite/...

unit:
	@command -v gcc >/dev/null || { echo "the race detector needs gcc: apt-get install gcc libc6-dev"; exit 1; }
	@[ $$(id -u) = 0 ] || echo "== not root: the tests that make network namespaces skip themselves"
	@echo "== go test -race"
	@$(GO) test -race -timeout 15m $(PKGS)

test: preflight check e2e ## check, then the end-to-end tests on a cluster of their own; what CI runs

preflight: # before minutes of building: what this machine lacks, installed or named
	@[ -n "$$KUBECONFIG" ] || $(GO) run ./e2e/cluster/cmd/cluster preflight

e2e: tools
	@echo "== end to end"
	@$(GO) test -tags e2e -count=1 -timeout 60m -parallel 4 -v ./e2e/suite
	@echo "== the life of a cluster, of which the tests above made the programs and images"
	@$(GO) test -count=1 -timeout 20m ./e2e/cluster -run Life -cluster

sabotage: tools ## break the product on purpose; every break must turn a named test red
	@$(GO) run ./e2e/cmd/sabotage

bench: $(CRDS) ## the table of ratios, and build/bench/results.json; PEERS=envoy adds Envoy to nginx
	@mkdir -p $(BUILD)/bench
	@$(GO) run ./bench/cmd/bench

fuzz: ## every fuzz target for FUZZTIME (60s) each; ONLY=zds runs some
	@$(GO) run ./e2e/cmd/fuzz -time $${FUZZTIME:-60s} -only "$${ONLY:-}"

soak: tools ## the long matrix, about two and a half hours on two clusters; FORM=short, ONLY="names", REPORT=file
	@$(GO) run ./e2e/cmd/soak

conformance: tools ## the official Gateway API conformance suite; MODE=standard, auto or experimental runs one mode
	@$(GO) run ./e2e/cmd/conformance

# --- artefacts ------------------------------------------------------------

images: ## image archives in build/images; IMAGE_REPO=registry/path pushes them
	@$(GO) run ./e2e/images/cmd/images $(if $(IMAGE_REPO),-push $(IMAGE_REPO) -tag $(IMAGE_TAG))

manifests: ## render build/manifests for: kubectl apply --server-side -k build/manifests
	@$(GO) run ./manifests/cmd/manifests -out $(BUILD)/manifests $(if $(IMAGE_REPO),-image-repo $(IMAGE_REPO)) -image-tag $(IMAGE_TAG)

$(CRDS) &: go.mod manifests/crd/crd.go
	@$(GO) run ./manifests/cmd/manifests -embed manifests/crd/files

tools: $(BIN)/ambit ## build/bin/ambit, the command-line tool

$(BIN)/ambit: FORCE $(CRDS)
	@mkdir -p $(BIN)
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./ambit/cmd/ambit

gen: ## the Go code of our .proto files (needs protobuf-compiler and libprotobuf-dev)
	@command -v protoc >/dev/null || { echo "protoc is missing: apt-get install protobuf-compiler libprotobuf-dev"; exit 1; }
	@mkdir -p $(BIN)
	@$(GO) build -o $(BIN)/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
	@protoc -I internal/wire --plugin=$(BIN)/protoc-gen-go --go_out=. \
	  --go_opt=module=github.com/ambit-mesh/ambit $$(cd internal/wire && ls */*.proto | sed 's,^,internal/wire/,')
	@gofmt -l internal/wire | xargs -r gofmt -w

clean: down ## down, and delete build/ with every cache in it
	@rm -rf $(BUILD) $(CRDS)

FORCE:
