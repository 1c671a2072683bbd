# `make quickstart` and `make test` need nothing but Python 3.11 or 3.12; the first call sets up .venv.
PYTHON := $(firstword $(foreach name,python3.12 python3.11 python3,$(if $(shell $(name) -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,12))' 2>/dev/null && echo yes),$(name))))
# Prefer `python3`, so that an active virtual environment keeps its version.
PYTHON := $(or $(if $(shell python3 -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,12))' 2>/dev/null && echo yes),python3),$(PYTHON))
VENV := .venv
READY := $(VENV)/ready

# veRL's separate environment, for train.python; needs Python 3.11.
VERL := .venv-verl
PYTHON311 := $(firstword $(foreach name,python3 python3.11,$(if $(shell $(name) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo yes),$(name))))

.PHONY: quickstart test lint fix e2e gpu install verl lock clean

quickstart: $(READY)
	$(VENV)/bin/python -m dsrl experiment=quickstart

test: $(READY)
	$(VENV)/bin/python -m pytest -q -m "not e2e" --ignore tests/e2e --ignore tests/gpu --timeout 300 -n auto --dist worksteal

e2e: $(READY)
	$(VENV)/bin/python -m pytest -q -m e2e --timeout 1800

gpu: $(READY)
	$(VENV)/bin/python -m pytest -q -s -m gpu tests/gpu --timeout 1800

lint: $(READY)
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

fix: $(READY)
	$(VENV)/bin/ruff check --fix . ; $(VENV)/bin/ruff format .

install: $(READY)

$(READY): pyproject.toml $(wildcard requirements/*.txt) requirements/install.sh
	@test -n "$(PYTHON)" || { echo "dsrl needs Python 3.11 or 3.12 on the PATH"; exit 1; }
	sh requirements/install.sh "$(PYTHON)" $(VENV)
	@touch $(READY)

verl: $(VERL)/ready

$(VERL)/ready: pyproject.toml requirements/verl-cpu-3.11.txt requirements/verl-cpu.sh requirements/vllm-name/pyproject.toml
	@test -n "$(PYTHON311)" || { echo "veRL's environment needs Python 3.11 on the PATH"; exit 1; }
	sh requirements/verl-cpu.sh "$(PYTHON311)" $(VERL)
	@touch $(VERL)/ready

lock:
	sh requirements/lock.sh

clean:
	rm -rf $(VENV) $(VERL) build dist .mypy_cache .pytest_cache .ruff_cache
