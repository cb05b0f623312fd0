# Every target sets up what it needs in .venv; a second call does only what has become necessary.
PYTHON      ?= python3
# Address of another index of PyTorch builds (README: "Choosing a PyTorch build"); empty: pip's own choice.
TORCH_INDEX ?=
PORT        ?= 8000
NB          ?=

VENV  := .venv
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready
PAGE  := _build/html/index.html
# DGL is compared in an environment of its own: no part of the book may depend on it.
DGL   := .venv-dgl

# torch and what only its CUDA builds need: chosen by pip for the machine, not by the lock
UNLOCKED := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti \
  nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand \
  nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink \
  nvidia-nvshmem-cu13 nvidia-nvtx

BOOK_INPUTS := _config.yml CHANGELOG.md $(wildcard benchmarks/*.json benchmarks/entries/*.json) \
  $(shell find book -mindepth 1 -not -path '*/.*' -not -path '*/__pycache__*' -not -path 'book/_ext' 2>/dev/null)
NOTEBOOKS   := $(shell find book teaching -name '*.ipynb' -not -path '*/.*' 2>/dev/null)
BENCHES     := $(filter-out benchmarks/notebooks.py,$(wildcard benchmarks/*.py))
FORECASTS   := irish_wind uk_temperature advection gales cold_and_heat drought energy

# glibc would otherwise map and unmap every large tensor at each step
export MALLOC_MMAP_MAX_ := 0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help book test notebooks serve bench bench-forecast frameworks lint lock clean distclean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

book: _build/.book ## build the pages of the book and say where they are
	@echo "The book: $(PAGE)"

test: $(READY) lint ## check the code, then the package, then the book (every notebook is executed)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile tests
ifneq ($(NOTEBOOKS),)
	@# one after the other: two kernels that start in the same moment may be given the same port, and one dies
	OMP_NUM_THREADS=1 $(PY) -m pytest --nbval --nbval-current-env \
	  --nbval-cell-timeout 300 --nbval-kernel-startup-timeout 120 $(NOTEBOOKS)
endif

notebooks: $(READY) ## execute notebooks that changed, store outputs and cost (NB=path: just that one)
	$(PY) benchmarks/notebooks.py $(if $(NB),$(NB),--changed)

serve: book ## show the built book at http://127.0.0.1:8000 (PORT=... for another port)
	$(PY) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

bench: notebooks $(BENCHES:benchmarks/%.py=_build/.bench-%) ## measure what the book reports: each benchmark writes a JSON file

bench-forecast: $(FORECASTS:%=_build/.bench-%) ## only the forecasts: all that the leaderboard shows

frameworks: $(DGL)/.ready ## the same block in PyTorch Geometric and in DGL (its own environment): test, then measure
	OMP_NUM_THREADS=1 STGCN_LAB_DGL=required $(IN_DGL) -m pytest -k "not stored" tests/test_frameworks.py
	OMP_NUM_THREADS=1 $(IN_DGL) benchmarks/frameworks.py

lint: $(READY) ## style and types only
	$(PY) -m ruff check .
	$(PY) -m mypy

lock: ## resolve requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra applications --extra book --extra explain --extra grib --extra scale --extra test --universal --python-version 3.11 \
	  --generate-hashes -c constraints.txt --no-header --no-annotate -q -o requirements.lock \
	  $(addprefix --no-emit-package ,$(UNLOCKED))

clean: ## remove the built book and all caches (the environment stays)
	rm -rf _build build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . \( -path ./$(VENV) -o -path ./$(DGL) \) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -print \
	  | xargs rm -rf

distclean: clean ## remove the environments too
	rm -rf $(VENV) $(DGL) *.egg-info

$(READY): pyproject.toml constraints.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, but $(PYTHON) is `$(PYTHON) --version 2>&1 | tail -n 1`." \
	    "Choose another with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PY) -m pip install -q --no-deps --require-hashes -r requirements.lock
	$(PY) -m pip install -q --no-deps -e .
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

# --all: after a failed build an incremental one would pass with the errors still there
_build/.book: $(READY) $(BOOK_INPUTS)
	$(VENV)/bin/jupyter-book build book --config _config.yml --path-output . --all -n -W --keep-going
	$(PY) -m pytest tests/book/test_pages.py
	@touch $@

# a stamp, not the JSON file itself: building the book must never start a measurement
_build/.bench-%: benchmarks/%.py $(READY)
	@# status 75: its data could not be had, and it has said so. No stamp: the next call tries again.
	$(PY) $< && mkdir -p $(@D) && touch $@ || test $$? -eq 75
