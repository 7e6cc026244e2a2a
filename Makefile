# Every target sets up what it needs by itself: .venv with the versions of requirements.lock.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/induction
SEED ?= 0
# without a GPU the CPU build of torch is enough; where its index cannot be reached the pinned version is taken as it comes
TORCH_CPU := https://download.pytorch.org/whl/cpu

.PHONY: help setup test lint phase-change smoke benchmarks clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/installed  ## make .venv

$(VENV)/installed: requirements.lock pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@torch=$$(grep '^torch==' requirements.lock); \
	if [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
		$(VENV)/bin/pip install --quiet --retries 0 --timeout 10 --index-url $(TORCH_CPU) $$torch 2>/dev/null || true; \
	fi
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

test: setup lint  ## lint, types, tests with coverage
	$(VENV)/bin/pytest --cov=induction_cli --cov-report=term

lint: setup  ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

phase-change: setup  ## train one and two layers on real text, score them, say what was seen (about 5 minutes on 2 cores)
	@out=runs/phase_change/$$(date +%Y-%m-%d_%H-%M-%S); \
	$(RUN) train -e phase_change -m seed=$(SEED) hydra.sweep.dir=$$out && $(RUN) score $$out

clean:  ## remove .venv; runs/ and the token cache stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .coverage
