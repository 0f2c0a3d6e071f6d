# Thin: says what is missing, makes the environments, calls tox.

PYTHON ?= python3
SECONDS ?= 120
PACKAGES := packages/flow-core packages/flow-providers packages/flow-executors packages/flow-staging \
            packages/flow-monitor packages/flow-viz packages/flow
SOURCES := $(shell find packages -path '*/src/*' -type f -not -name '*.pyc') $(wildcard packages/*/pyproject.toml)
TOX := .venv-tools/bin/tox

.PHONY: quickstart test integration versions release chaos soak check clean

quickstart: .venv/installed
	.venv/bin/python examples/quickstart/quickstart.py

# Three environments at a time: those of the integration tests, the first and longest, mostly wait for processes.
test: $(TOX)
	$(TOX) run-parallel --parallel 3 --parallel-no-spinner

integration: $(TOX)
	@if [ "$$(id -u)" = 0 ]; then tests-integration/services/install.sh; \
	  else echo "not root, so no service is installed: tests of those that are missing are left out"; fi
	$(TOX) run-parallel --parallel 2 --parallel-no-spinner -e services,shapes,engines,remote,slow,programs

# Each other release of Python that is here, the lowest releases of dependencies, and distributions of the last release.
versions: $(TOX)
	.venv-tools/bin/python .ci/pythons.py lowest mixed

release: $(TOX)
	$(TOX) run -e release -- release

chaos: $(TOX)
	FLOW_CHAOS_SECONDS=$(SECONDS) $(TOX) run -e chaos

soak: $(TOX)
	$(TOX) run -e soak

# All seven folders in one command: no flow* name is ever looked up on an index.
.venv/installed: $(SOURCES) | check
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(PACKAGES)
	@touch $@

$(TOX): | check
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install --quiet --disable-pip-version-check 'tox>=4.11' 'tox-uv>=1.11'

check:
	@command -v $(PYTHON) >/dev/null || { echo "Flow needs Python 3.11 or newer: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Flow needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module: apt-get install python3-venv" >&2; exit 1; }

clean:
	rm -rf .venv .venv-tools .tox dist docs/_build .ci/artifacts
