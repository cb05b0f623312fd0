# Every target sets up what it needs in .venv; a second call does only what has become necessary.
PYTHON      ?= python3
# Address of another index of PyTorch builds (README: "Choosing a PyTorch build"); empty: pip's own choice.
TORCH_INDEX ?=
PORT        ?= 8000
NB          ?=
URL         ?=

VENV  := .venv
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready
PAGE  := _build/html/index.html
# DGL is compared in an environment of its own: no part of the book may depend on it.
DGL   := .venv-dgl
# Notebooks are tested with the package as a reader installs it, and nothing else of the project.
WHEEL := .venv-wheel
# What the pages load or are checked with comes from npm, whose client the environment has.
NODE  := node_modules/.ready

# the extras of pyproject.toml that the set-up installs
SET_UP := applications book browser explain grib scale teach test
# torch and what only its CUDA builds need: chosen by pip for the machine, not by the lock
UNLOCKED := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti \
  nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand \
  nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink \
  nvidia-nvshmem-cu13 nvidia-nvtx

BOOK_INPUTS := _config.yml CHANGELOG.md CITATION.cff teaching/syllabi.md benchmarks/live.py benchmarks/live.pt \
  $(wildcard stgcn_lab/*.py stgcn_lab/datasets/*.py stgcn_lab/data/registry.json) $(wildcard benchmarks/*.json benchmarks/entries/*.json) \
  $(shell find book -mindepth 1 -not -path '*/.*' -not -path '*/__pycache__*' -not -path 'book/_ext' 2>/dev/null)
# the assignments are tried by their own tests, with the grader
NOTEBOOKS   := $(shell find book teaching -name '*.ipynb' -not -path '*/.*' -not -path 'teaching/assignments/*' 2>/dev/null)
BENCHES     := $(filter-out benchmarks/notebooks.py,$(wildcard benchmarks/*.py))
FORECASTS   := irish_wind uk_temperature advection gales cold_and_heat drought energy

# glibc would otherwise map every large tensor anew at each step and unmap it, and its pages be cleared and entered
# each time. So: no mapping, nothing handed back (-1: never), and 64 MiB at once when more is needed. The same as
# training.reuse_memory(), from the start of every process; where one of these is set, that function changes nothing.
export MALLOC_MMAP_MAX_ := 0
export MALLOC_TRIM_THRESHOLD_ := -1
export MALLOC_TOP_PAD_ := 67108864

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help book test notebooks serve accessibility pdf teach bench bench-forecast bench-speed frameworks versions set-repository lint lock clean distclean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

book: _build/.book ## build the pages of the book and say where they are
	@echo "The book: $(PAGE)"

test: $(READY) $(WHEEL)/.ready lint ## check the code, the package, then every notebook and its exercises (NB=path: just that one)
ifeq ($(NB),)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --ignore tests/browser tests
endif
ifneq ($(NOTEBOOKS),)
	@# one after the other: two kernels that start in the same moment may be given the same port, and one dies
	OMP_NUM_THREADS=1 $(PY) tools/run_notebooks.py --python $(WHEEL)/bin/python $(or $(NB),$(NOTEBOOKS))
endif

notebooks: $(READY) ## execute notebooks that changed, store outputs and cost (NB=path: just that one)
	$(PY) benchmarks/notebooks.py $(if $(NB),$(NB),--changed)

serve: book ## show the built book at http://127.0.0.1:8000 (PORT=... for another port)
	$(PY) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

accessibility: book teach $(NODE) ## check pages and slides in a browser: access, weight, requests, the network in its page
	$(PY) -m pytest tests/browser

pdf: book ## print the whole book as one PDF
	$(PY) tools/pdf.py
	BOOK_PDF=_build/weather-on-graphs.pdf $(PY) -m pytest tests/browser/test_pdf.py

teach: $(READY) $(NODE) ## build slides, instructor's guide, quiz bank and graded assignments
	$(PY) teaching/build.py
	OMP_NUM_THREADS=1 $(PY) teaching/assignments.py build

bench: notebooks $(BENCHES:benchmarks/%.py=_build/.bench-%) ## measure what the book reports: each benchmark writes a JSON file

bench-forecast: $(FORECASTS:%=_build/.bench-%) ## only the forecasts: all that the leaderboard shows

bench-speed: $(READY) ## only the speed: seconds and memory of training and forecasting on this machine
	$(PY) benchmarks/speed.py

frameworks: $(DGL)/.ready ## the same block in PyTorch Geometric and in DGL (its own environment): test, then measure
	OMP_NUM_THREADS=1 STGCN_LAB_DGL=required $(IN_DGL) -m pytest -k "not stored" tests/test_frameworks.py
	OMP_NUM_THREADS=1 $(IN_DGL) benchmarks/frameworks.py

versions: $(READY) ## test the package with Python 3.11 to 3.13, newest and lowest dependencies (needs uv; tens of minutes)
	$(PY) tools/versions.py

set-repository: $(READY) ## write the address of the repository wherever it is needed (URL=https://github.com/OWNER/NAME)
	$(PY) tools/repository.py $(if $(URL),"$(URL)")

lint: $(READY) ## style and types only
	$(PY) -m ruff check .
	$(PY) -m mypy

lock: ## resolve requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 $(SET_UP:%=--extra %) \
	  --generate-hashes -c constraints.txt --no-header --no-annotate -q -o requirements.lock \
	  $(addprefix --no-emit-package ,$(UNLOCKED))

clean: ## remove the built book and all caches (the environment stays)
	rm -rf _build build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . \( -path ./$(VENV) -o -path ./$(WHEEL) -o -path ./.venv-versions -o -path ./$(DGL) \) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -print \
	  | xargs rm -rf

distclean: clean ## remove the environments too
	rm -rf $(VENV) $(WHEEL) .venv-versions $(DGL) node_modules *.egg-info

$(READY): pyproject.toml constraints.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, but $(PYTHON) is `$(PYTHON) --version 2>&1 | tail -n 1`." \
	    "Choose another with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PY) -m pip install -q --no-deps --require-hashes -r requirements.lock
	$(PY) -m pip install -q --no-deps -e .
	@touch $@

$(NODE): package.json package-lock.json $(READY)
	@mkdir -p _build
	@$(VENV)/bin/npm ci --ignore-scripts --loglevel=error --fetch-retries=1 > _build/npm.log 2>&1 || { \
	  echo "npm could not install what package.json names (onnxruntime-web, axe-core, reveal.js):" \
	    "`sed -n 's/^npm error \(.*request to\)/\1/p' _build/npm.log | head -n 1` (all of it: _build/npm.log)." \
	    "It needs its registry once; another one: npm_config_registry=https://... make ..." >&2; exit 1; }
	@touch $@

$(WHEEL)/.ready: pyproject.toml constraints.txt requirements.lock $(READY)
	$(PYTHON) -m venv $(WHEEL)
	@sed -n 's/ *\\$$//; /^[A-Za-z0-9].*==/p' requirements.lock > $(WHEEL)/lock.txt
	@$(PY) tools/run_notebooks.py --needs > $(WHEEL)/needs.txt
	$(WHEEL)/bin/pip install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(WHEEL)/bin/pip install -q -c constraints.txt -c $(WHEEL)/lock.txt -r $(WHEEL)/needs.txt
	@touch $@

# The versions are those of the lock. DGL keeps its settings below $(DGL) in place of the reader's home folder.
IN_DGL = DGLBACKEND=pytorch DGLDEFAULTDIR=$(DGL)/settings PYTHONPATH=. $(DGL)/bin/python
DGL_NEEDS := "dgl==1.1.3" hypothesis numpy packaging pytest scipy torch_geometric xarray

$(DGL)/.ready: constraints.txt requirements.lock
	@found=`$(PYTHON) -c 'import platform as p; print(p.system(), p.machine(), *p.python_version_tuple()[:2])'`; \
	  test "$$found" = "Linux x86_64 3 11" || { echo "make frameworks: expected Python 3.11 on Linux x86_64, for" \
	    "which DGL 1.1.3 is published as a wheel and was tried; found '$$found' (system, processor, Python)." \
	    "Where only the Python differs, choose another with: make PYTHON=python3.11 frameworks"; exit 1; }
	$(PYTHON) -m venv $(DGL)
	@sed -n 's/ *\\$$//; /^[A-Za-z0-9].*==/p' requirements.lock > $(DGL)/lock.txt
	$(DGL)/bin/pip install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(DGL)/bin/pip install -q -c constraints.txt -c $(DGL)/lock.txt $(DGL_NEEDS)
	@touch $@

# --all: after a failed build an incremental one would pass with the errors still there. Without npm's registry the
# book is built all the same; only the network of the page live.html cannot run then, and the page says so.
_build/.book: $(READY) $(BOOK_INPUTS)
	@$(MAKE) -s $(NODE) || echo "make book: npm's packages could not be had, so the page live.html has no network to run"
	$(VENV)/bin/jupyter-book build book --config _config.yml --path-output . --all -n -W --keep-going
	$(PY) -m pytest tests/book/test_pages.py
	@touch $@

# a stamp, not the JSON file itself: building the book must never start a measurement
_build/.bench-%: benchmarks/%.py $(READY)
	@# status 75: its data could not be had, and it has said so. No stamp: the next call tries again.
	$(PY) $< && mkdir -p $(@D) && touch $@ || test $$? -eq 75
