# Every command that CI runs is a target here. Each virtual environment is made once, from a lock
# file, and again when that file changes; the native core is built again when its sources change.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# ONNX Runtime reports its use to its maker from import on; the SDK sees to that itself, tests and
# scripts that import it directly do not
export ORT_DISABLE_TELEMETRY := 1

# Any Python >= 3.11 may make the environments: make demo PYTHON=python3.13
PYTHON ?= python3
# Passed on to pytest: make test ARGS="-k bundle"
ARGS ?=

BIN := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
DEMO := .venv/demo
TEST := .venv/test
LOCK := .venv/lock
MODEL := build/demo-model
COMPILE := $(LOCK)/$(BIN)/uv pip compile pyproject.toml --constraint requirements/held.in \
	--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-config \
	--annotation-style line --custom-compile-command "make lock" --quiet
NATIVE := pyproject.toml $(shell find cpp -type f)

# How much make assurance does, beside what is done once: damaged files, and seconds to a fuzzer
FILES ?= 20000
FUZZ_SECONDS ?= 600

.PHONY: help demo test check bench bench-reading assurance fuzz-gate fuzz-native demo-model wheel \
	lock clean

help:
	@echo "make demo           score the example exam, in an environment of its own"
	@echo "make test           run the tests"
	@echo "make check          lint, types, import arrows, version, text"
	@echo "make bench          measure latency beside the PyTorch reference"
	@echo "make bench-reading  measure reading and preprocessing beside pydicom and NumPy"
	@echo "make assurance      hostile, damaged and wrong input, the fuzzers, docs/assurance.md: long"
	@echo "make fuzz-gate      fuzz the parsing of headers (needs atheris)"
	@echo "make fuzz-native    fuzz the native core under sanitizers"
	@echo "make demo-model     make the shipped bundle from nothing"
	@echo "make wheel          build the wheel and try it in a fresh environment"
	@echo "make lock           renew the lock files, keeping what still fits"
	@echo "make clean          remove environments and build products"

demo: $(DEMO)/built
	@$(DEMO)/$(BIN)/mammoclip-sdk demo --report report.html

test: $(TEST)/built
	@$(TEST)/$(BIN)/python -m pytest $(ARGS)

check: $(TEST)/built
	@$(TEST)/$(BIN)/ruff check
	@$(TEST)/$(BIN)/ruff format --check
	@$(TEST)/$(BIN)/mypy
	@$(TEST)/$(BIN)/lint-imports --no-logo
	@$(TEST)/$(BIN)/python -m checks.version
	@$(TEST)/$(BIN)/python -m checks.hosts

bench: $(TEST)/built
	@$(TEST)/$(BIN)/python benchmarks/latency.py

bench-reading: $(TEST)/built
	@$(TEST)/$(BIN)/python benchmarks/reading.py

assurance: fuzz-gate fuzz-native
	@$(TEST)/$(BIN)/python -m assurance.bombs
	@$(TEST)/$(BIN)/python -m assurance.mutation --files $(FILES)
	@$(TEST)/$(BIN)/python -m assurance.corruption --out assurance/results/corruption.json
	@$(TEST)/$(BIN)/python -m assurance.document

# Without atheris it says so and leaves the record as it is: pip install atheris (Linux, macOS).
fuzz-gate: $(TEST)/built
	@$(TEST)/$(BIN)/python -m assurance.gate_fuzz --seconds $(FUZZ_SECONDS)

fuzz-native: $(TEST)/built
	@$(TEST)/$(BIN)/python -m assurance.native_fuzz --seconds $(FUZZ_SECONDS) \
		--out assurance/results/native_fuzz.json

demo-model: $(TEST)/built
	@rm -rf $(MODEL)
	@$(TEST)/$(BIN)/python -m training.demo_model --out $(MODEL)
	@$(TEST)/$(BIN)/python export/build_engine.py --checkpoint $(MODEL)/checkpoint \
		--out mammoclip_sdk/demo/bundle --name phantom-demo --precisions fp32,bf16 --overwrite
	@$(TEST)/$(BIN)/python -m training.example_exam --out mammoclip_sdk/demo/exam
	@$(TEST)/$(BIN)/python -m benchmarks.figures

wheel: $(DEMO)/installed
	@$(DEMO)/$(BIN)/python -m checks.built_wheel

# Held versions move in requirements/held.in, all others by: make lock ARGS=--upgrade
lock: $(LOCK)/installed
	@$(COMPILE) $(ARGS) --extra cpu --group build --output-file requirements/demo.lock
	@$(COMPILE) $(ARGS) --extra cpu --extra openvino --extra signing --extra train --group build --group test --group check \
		--constraint requirements/demo.lock --output-file requirements/test.lock
	@echo "renewed requirements/demo.lock and requirements/test.lock"

clean:
	@rm -rf .venv build dist report.html mammoclip-report.html \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- environments ---------------------------------------------------------------------------------

$(DEMO)/installed: requirements/demo.lock
$(TEST)/installed: requirements/test.lock
$(DEMO)/installed $(TEST)/installed:
	@$(call venv,$(@D))
	@echo "$(@D): installing $< (the first time takes minutes: everything is downloaded)"
	@$(@D)/$(BIN)/python -m pip install -qq --require-hashes --requirement $<
	@touch $@

$(LOCK)/installed: requirements/lock.in
	@$(call venv,$(@D))
	@$(@D)/$(BIN)/python -m pip install -qq --requirement $<
	@touch $@

# Without isolation, so that the build uses the locked tools; editable, so that edits count at once.
%/built: %/installed $(NATIVE)
	@echo "$*: building the native core"
	@$*/$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@touch $@

define venv
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "mammoclip-sdk needs Python 3.11 or newer, and $(PYTHON) is not:" \
		"name another one, as in: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }; \
$(PYTHON) -m venv --clear $(1)
endef
