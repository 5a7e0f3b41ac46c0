# One command per intention; .ci/run calls the same.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The port of the demo.
PORT ?= 8000

# The commit beside which the benchmarks measure this tree; empty for none.
AGAINST ?= 94b8c20

# The compiled engine is made of all of these.
SOURCES := pyproject.toml hatch_build.py $(shell find asgi_ipc -name '*.py' -o -name '*.pxd')

# Of `make fuzz`.
EXECUTIONS ?= 10000000

# A warning of the compiler ends our own builds.
export ASGI_IPC_STRICT_BUILD ?= 1

.PHONY: help demo demo-cluster test test-all lint faults fuzz sanitize mutants bench bench-peers bench-cluster bench-quick wheels image-check clean

help:
	@echo "make demo         run the demo with four workers on 127.0.0.1:8000; PORT=8010: another port"
	@echo "make demo-cluster two nodes over NATS, on 127.0.0.1:8000 and 8001; PORT=8010: 8010 and 8011"
	@echo "make test         install everything and run the test suite, in some minutes"
	@echo "make test-all     all of it: what is slow, coverage, the oldest uvicorn, the newest Python; most of an hour"
	@echo "make lint         linter, formatter, types, imports"
	@echo "make faults       break it on purpose, for hours: every row of docs/guarantees.md, or ROW=name"
	@echo "make fuzz         10,000,000 mutated inputs for the parser, in some hours; EXECUTIONS=100000: fewer"
	@echo "make sanitize     the compiled modules under ASAN and UBSAN, and in a debug build of Python"
	@echo "make mutants      change the package in 300 places, one at a time: do the tests notice? ROOM=fleet: only there"
	@echo "make bench        measure everything beside an older commit (AGAINST=$(AGAINST)), in a quarter of an hour"
	@echo "make bench-peers  and beside Redis, NATS, ZeroMQ and others, which it installs: docs/benchmarks.md, README.md"
	@echo "make bench-cluster  two servers over NATS, beside its bare client, in some minutes"
	@echo "make bench-quick  in two minutes, beside a saved run: before a change with SAVE=1, and after it"
	@echo "make wheels       build a wheel for every Python of this machine, native and pure, into dist, and try each"
	@echo "make image-check  build the container image without a Docker engine and try it"

# The wheel is what is installed and tested, not the folder beside it.
$(VENV)/.demo: $(SOURCES)
	@scripts/venv $(PYTHON) $(VENV) demo
	@touch $@

$(VENV)/.demo-cluster: $(SOURCES)
	@scripts/venv $(PYTHON) $(VENV) demo demo-cluster
	@touch $@

$(VENV)/.test: $(SOURCES)
	@scripts/venv $(PYTHON) $(VENV) demo test lint
	@touch $@

$(VENV)/.all: $(SOURCES)
	@scripts/venv $(PYTHON) $(VENV) demo test lint slow
	@touch $@

$(VENV)/.faults: $(SOURCES)
	@scripts/venv $(PYTHON) $(VENV) demo test lint faults
	@touch $@

$(VENV)/.mutants: $(SOURCES)
	@scripts/venv $(PYTHON) $(VENV) demo test lint mutants
	@touch $@

$(VENV)/.peers: $(SOURCES)
	@scripts/venv $(PYTHON) $(VENV) demo test lint peers
	@touch $@

demo: $(VENV)/.demo
	@exec env DEMO_URL=http://127.0.0.1:$(PORT) $(BIN)/asgi-ipc serve demo:app --workers 4 --port $(PORT)

demo-cluster: $(VENV)/.demo-cluster
	@exec $(BIN)/python scripts/demo_cluster.py $(PORT)

test: $(VENV)/.test
	@scripts/test $(BIN) quick

# Coverage is measured of the reference, in Python, so the native engine has a run of its own.
test-all: $(VENV)/.all
	@scripts/test $(BIN) quick
	@scripts/test $(BIN) covered
	@scripts/installed $(BIN) -m tests.faults.fuzz --executions 200000
	@scripts/sanitize $(BIN) short
	@scripts/oldest $(BIN)
	@scripts/newest $(BIN)

lint: $(VENV)/.test
	@scripts/lint $(BIN)

faults: $(VENV)/.faults
	@scripts/installed $(BIN) -m tests.faults $(ROW)

fuzz: $(VENV)/.faults
	@scripts/installed $(BIN) -m tests.faults.fuzz --executions $(EXECUTIONS)

sanitize: $(VENV)/.test
	@scripts/sanitize $(BIN) long

mutants: $(VENV)/.mutants
	@$(BIN)/python -m tests.mutants $(if $(ROOM),--room "$(ROOM)")

bench: $(VENV)/.test
	@scripts/bench $(BIN) --without-peers $(if $(AGAINST),--against-commit $(AGAINST))

bench-peers: $(VENV)/.peers
	@scripts/peers
	@scripts/bench $(BIN) --publish $(if $(AGAINST),--against-commit $(AGAINST))

bench-cluster: $(VENV)/.peers
	@scripts/peers
	@$(BIN)/python -m benchmarks.clusters

bench-quick: $(VENV)/.test
	@$(BIN)/python -m benchmarks --quick $(if $(SAVE),--save)

wheels:
	@scripts/wheels

image-check:
	@scripts/image-check

clean:
	rm -rf $(VENV) build dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
