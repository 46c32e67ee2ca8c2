# make demo   the transition from memorisation to generalisation, small, from a bare clone
# make test   the default tests          make lint   format, lint, types, imports between folders
# make bench  speed against textbook baselines, into benchmarks/RESULTS.md
# make test-slow, make test-gpu, make test-notebooks   the tests behind markers
# make test-ui   the MLflow UI on a sweep, in Chromium; PICTURES=folder keeps what it shows
# make gpu    a GPU against a CPU, its memory and speed, into benchmarks/GPU.md; PARTS="parity graph" for some of it
# make chaos  a sweep on several hosts that fail, into chaos/RESULTS.md; as root
# make docs   docs/settings.md from the code, and the site, into docs/_build/html; make linkcheck its links outside
# make docs-test   every command that README and docs show, run as shown
# make results   docs/results.md and its tables, from the record and storage that the environment names
# make audit  known vulnerabilities of what was tested, requirements.lock; make lock writes that file anew

PYTHON      ?= python3
CONSTRAINTS ?= constraints.txt
BIN         := .venv/bin
GPU_PYTHON  ?= $(if $(wildcard .venv/installed),$(BIN)/python,$(PYTHON))

.PHONY: demo test test-slow test-gpu test-ui test-notebooks bench gpu chaos lint docs results docs-test linkcheck lock audit clean
.DELETE_ON_ERROR:

.venv/installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gahb needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	@touch $@

demo: .venv/installed
	$(BIN)/gahb-sweep launch demo
	$(BIN)/gahb-analyze pairs demo
	$(BIN)/gahb-analyze scaling demo

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

test-notebooks: .venv/installed
	$(BIN)/python -m pytest -m notebooks

bench: .venv/installed
	$(BIN)/python -m benchmarks

gpu:
	$(GPU_PYTHON) -m benchmarks.gpu $(PARTS)

chaos: .venv/installed
	$(BIN)/python -m chaos

test-gpu: .venv/installed
	$(BIN)/python -m pytest -m gpu

test-ui: .venv/installed
	GAHB_UI_PICTURES=$(abspath $(PICTURES)) $(BIN)/python -m pytest -m ui

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/installed
	$(BIN)/python -m docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --conf-dir docs . docs/_build/html

results: .venv/installed
	$(BIN)/python -m results gather
	$(BIN)/python -m results page

linkcheck: .venv/installed
	$(BIN)/python -m sphinx --quiet --builder linkcheck --conf-dir docs . docs/_build/linkcheck

docs-test: .venv/installed
	$(BIN)/python -m pytest -p tests.documents --tb short -rs README.md docs/*.md

lock: .venv/installed
	$(BIN)/python -c 'import platform as p; print("# What was tested, on Python", p.python_version(), p.system(), p.machine())' > requirements.lock
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+.*//' >> requirements.lock

# A package that PyPI or OSV does not tell of counts as no answer, for it was not audited.
audit: .venv/installed
	@for source in pypi osv; do \
	  found=$$($(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off \
	    --vulnerability-service $$source --requirement requirements.lock 2> /dev/null) && \
	    { echo "audit: $$source knows no vulnerability of requirements.lock"; exit 0; }; \
	  [ -z "$$found" ] || { echo "$$found"; exit 1; }; \
	done; \
	echo "audit: PyPI and OSV do not answer; nothing was audited" >&2; exit 1

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache docs/_build
