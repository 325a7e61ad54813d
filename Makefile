# make bench   measure what params.yaml asks for, then show the results; LEVEL=2 first writes that coverage preset there,
#              VERBOSE=1 tells each phase of each point
# make test    lint, types, unit tests, and the real pipeline on a small sweep
# make test-device   what only an accelerator has, on the one of this machine; writes docs/devices.md
# make example-kernel   measure the kernel in examples/kernels/rmsnorm-cpu against the built-in layer (docs/kernels.md)
# The first of either sets up .venv; PYTHON names another interpreter for it. VENV names an environment that exists, with a
# torch of your own, into which hfbench is installed as it is (docs/versions.md); nothing that it has is changed without need.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.hfbench-ready
# Of an environment of our own, the versions that were tried together; another keeps its own within the ranges.
EXACTLY := $(if $(filter .venv,$(VENV)),--constraint constraints.txt)
EXTRAS := $(if $(filter .venv,$(VENV)),[dev])
SAID := $(VENV)/pip.log
# Of what pip says: what is large (100 MB and more), and that all is there.
STEPS := s/^ *(Downloading|Using cached) ([^ ]*) \(([0-9]{3,}\.?[0-9]* MB|[0-9.]+ GB)\).*/  \2, \3/p; \
	s/^Installing collected packages.*/  all is there; unpacking it/p
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: bench test test-device example-kernel setup clean
.DEFAULT_GOAL := bench

bench: $(READY)
	@$(if $(LEVEL),hfbench level $(LEVEL))
	@hfbench check
	@HFBENCH_TABLE=off python -m dvc repro $(if $(VERBOSE),--verbose,--quiet) || { echo "The pipeline stopped; \`dvc repro\` says more." >&2; exit 1; }
	@hfbench show

test: $(READY)
	ruff check .
	ruff format --check .
	mypy
	OMP_NUM_THREADS=1 pytest tests/fleet   # whose nodes have a core each
	OMP_NUM_THREADS=1 pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --ignore tests/fleet

KERNEL := {layer: RMSNorm, device: cpu, path: examples/kernels/rmsnorm-cpu, layer_name: RMSNorm}

# In at most ten minutes, without any network.
test-device: $(READY)
	python -m benchmarks.device --write docs/devices.md

example-kernel: $(READY)
	HFBENCH_TABLE=off python -m dvc exp run --quiet --set-param 'kernels=[$(KERNEL)]' --set-param 'device=cpu' \
		--set-param 'sweep.attn_implementation=[eager]' --set-param 'sweep.use_kernels=[false, true]' \
		--set-param 'sweep.batch_size=[1]'
	@hfbench show
	@hfbench show --point 'eager kernels'
	@hfbench compare --axis use_kernels

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "hfbench needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || test $(VENV) = .venv || \
		{ echo "$(VENV) is no environment: it has no bin/python. Name one that exists, or leave VENV out." >&2; exit 1; }
	@test -x $(BIN)/python || echo "Setting up .venv, once: a virtual environment of $$($(PYTHON) -V)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing hfbench, torch, transformers, DVC and what they need into $(VENV): some minutes, more for the CUDA build"
	@{ $(BIN)/python -m pip install --disable-pip-version-check --no-input --progress-bar off $(EXACTLY) \
		--editable '.$(EXTRAS)' 2>&1; echo $$? > $(READY).status; } | tee $(SAID) | sed -u -n -E "$(STEPS)"
	@test "$$(cat $(READY).status)" = 0 || \
		{ tail -n 15 $(SAID) >&2; echo "pip could not install it; all that it said is in $(SAID)" >&2; exit 1; }
	@rm $(READY).status
	@touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info
