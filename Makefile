# RealMaster reproducibility kit. `make help` lists the targets; PROFILE=mini is the default of all of them.
PROFILE ?= mini
ARGS ?=
TORCH_ARGS ?=
SPLIT ?= pretrain
COUNT ?= 320
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The environment: an activated venv or conda environment if there is one (conda's `base` does not count), else
# .venv, made here. The stamp in it says which lock was installed, and for which clone.
ifneq ($(shell test -x "$(VIRTUAL_ENV)/bin/python" && echo yes),) # `wildcard` would break a path with spaces in two
ENV := $(VIRTUAL_ENV)
else ifneq ($(and $(CONDA_PREFIX),$(filter-out base,$(CONDA_DEFAULT_ENV))),)
ENV := $(CONDA_PREFIX)
else
ENV := $(CURDIR)/.venv
endif
PY := "$(ENV)/bin/python"
RMKIT := $(PY) -m rmkit
LOCK_KEY := $(shell { cat requirements.lock; pwd; } | cksum | tr -d ' ')
STAMP := $(ENV)/.rmkit-setup-$(LOCK_KEY)
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.lock)
RAY := $(shell sed -n 's/^workers = \["\(.*\)"\]/\1/p' pyproject.toml)
PIP := $(PY) -m pip --disable-pip-version-check --no-input
PIP_INSTALL := $(PIP) install --quiet --root-user-action=ignore

.PHONY: help setup workers doctor plan calibrate reproduce verify tables test browser bench compare-modes rehearse lab lint format docs lock clean pretrain-data bundle

help: ## this list
	@echo "make TARGET [PROFILE=mini|smoke|consumer|paper|paper-480|paper-fast|path/to/profile.yaml]"
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) \
	| while IFS=$$'\t' read -r target text; do printf '  %-14s %s\n' "$$target" "$$text"; done
	@echo
	@echo "Times are of two laptop cores with PROFILE=mini. On a machine without a GPU, a CPU build of torch is"
	@echo "smaller: make setup TORCH_ARGS=\"--index-url ADDRESS\", with the address PyTorch's install page gives."

setup: ## the environment, once and after a changed lock; 2-10 min of download; writes .venv (or the activated one)
	@if [ -e "$(STAMP)" ]; then exit 0; fi; \
	if [ "$(ENV)" = "$(CURDIR)/.venv" ] && ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  for candidate in python3.11 python3.12 python3.13 python3 python; do \
	    if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$${found:-}" ]; then echo "setup: no Python 3.11 or later on the PATH; install one, then run make again." >&2; exit 2; fi; \
	  echo "setup: making .venv with $$($$found --version)"; \
	  $$found -m venv --clear "$(ENV)" || { echo "setup: $$found cannot make a venv; on Debian and Ubuntu install python3-venv." >&2; exit 2; }; \
	fi; \
	$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: the Python of $(ENV) is older than 3.11." >&2; exit 2; }; \
	rm -f "$(ENV)"/.rmkit-setup-*; \
	echo "setup: $(TORCH) (kept if it is there; its CUDA packages come with it where there are any)"; \
	$(PIP_INSTALL) $(TORCH_ARGS) "$(TORCH)"; \
	echo "setup: the packages of requirements.lock"; \
	$(PIP_INSTALL) --no-deps -r requirements.lock; \
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .; \
	$(PY) -c 'import torch, cv2, diffusers, av, rmkit'; \
	touch "$(STAMP)"; echo "setup: done"

workers: setup ## Ray, for WORKERS= and RAY_ADDRESS; 1 min of download; writes the environment
	@$(PIP_INSTALL) "$(RAY)"

doctor: setup ## what this machine has and what the profile needs; 10 s; writes nothing
	@$(RMKIT) doctor --profile "$(PROFILE)"

plan: setup ## what a run takes: hours, memory, disk, USD, and what does not fit; 30 s; ARGS="--gpu h100" elsewhere
	@$(RMKIT) plan --profile "$(PROFILE)" $(ARGS)

calibrate: setup ## a timed step of each stage here, for plan; 1 min; writes results/calibration.json
	@$(RMKIT) calibrate --profile "$(PROFILE)"

reproduce: setup ## all notebooks in order (WORKERS=8: shared by workers); 17 to 25 min; writes results/PROFILE/ (start with index.html); resumable
	@$(RMKIT) notebooks --profile "$(PROFILE)" $(if $(ANYWAY),--anyway) $(if $(WORKERS),--workers $(WORKERS))

verify: setup ## this run's metrics.csv beside the shipped one, within the spread over seeds; 3 s; writes nothing
	@$(RMKIT) verify --profile "$(PROFILE)" $(ARGS)

tables: setup ## tables, figures and report from metrics.csv, or before a run from the shipped one; 10 s; writes results/PROFILE/{tables,figures,index.html,report.md}
	@$(RMKIT) report --profile "$(PROFILE)"

# A process a core, of one thread and up to 1.3 GB; a file's tests stay together, with what they share.
test: setup ## every stage on tiny clips, bad inputs, notebooks at smoke size; 10 to 25 min on two cores; ARGS="-k video" for some
	@OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

browser: setup ## playwright, for the tests that open pages in the system's chromium; 1 min; writes the environment
	@$(PIP_INSTALL) "playwright>=1.55"

bench: setup ## what seeing the render costs (each in-context mode), and a metric beside VBench's; 2 min; writes nothing
	@$(PY) benchmarks/incontext.py $(ARGS)
	@$(PY) benchmarks/temporal_flickering.py

compare-modes: setup ## joint against one-way attention, trained alike, after reproduce; 4 min; writes results/PROFILE/tables/modes.*
	@$(PY) benchmarks/compare_modes.py --profile "$(PROFILE)"

rehearse: setup ## PROFILE=paper|consumer|...|all: a real profile on random stand-ins of its models; 1 to 3 min each; writes results/rehearsal-PROFILE/
	@$(PY) -m rehearsal.rehearse "$(if $(filter mini,$(PROFILE)),paper,$(PROFILE))"

lab: setup ## JupyterLab with 00_start_here open, to step through the stages; ARGS="--no-browser"; writes what you run
	@$(PY) -m jupyterlab notebooks/00_start_here.ipynb --ServerApp.root_dir="$(CURDIR)" \
	  $$([ "$$(id -u)" = 0 ] && echo --allow-root) $(ARGS)

lint: setup ## ruff check and format check, and what imports what; 3 s; writes nothing
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && "$(ENV)/bin/lint-imports" --no-cache

format: setup ## ruff's formatter and safe fixes; 1 s; writes the sources
	@$(PY) -m ruff check --fix . && $(PY) -m ruff format .

docs: setup ## claims, costs and cards anew from the record, the moving picture from results/mini; 10 s; writes README.md, docs/, cards under data/diorama/
	@$(PY) docs/generate.py && $(PY) docs/moving_picture.py && $(PY) data/diorama/hub_cards.py
	@if $(PY) -c 'import mlcroissant' 2>/dev/null; then $(PY) data/diorama/croissant.py; \
	else echo "docs: croissant.json left as it is: mlcroissant is not here (pip install -e '.[artifact]')"; fi

lock: setup ## requirements.lock anew from pyproject.toml (UPGRADE=1: newest versions); 10 s
	@$(PIP_INSTALL) uv
	@$(PY) -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --quiet \
	  --no-emit-index-url --no-emit-find-links --no-annotate \
	  --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) --output-file requirements.lock

pretrain-data: setup ## the diorama rendered again with Blender (Python 3.11; SPLIT=, COUNT=); hours, resumable; writes data/diorama/work/
	@$(PIP_INSTALL) --no-deps "bpy==5.0.0" # it would put numpy 1 in the place of the lock's, and works without
	@$(PY) data/diorama/render.py --out data/diorama/work/rendered --split $(SPLIT) --count $(COUNT) $(ARGS)

bundle: setup ## the shipped clips from the rendered ones; 2 min; writes data/diorama/clips/
	@$(PY) data/diorama/bundle.py $(ARGS)

clean: ## caches and .venv; spares results/ and everything rendered or trained
	@rm -rf .venv .pytest_cache .ruff_cache rmkit.egg-info build notebooks/.ipynb_checkpoints
	@find . -name __pycache__ -type d -not -path './results/*' -prune -exec rm -rf {} +
