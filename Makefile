# make bench   measure what params.yaml asks for, then show the results; LEVEL=2 first writes that coverage preset there
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
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: bench test test-device example-kernel setup clean
.DEFAULT_GOAL := bench

bench: $(READY)
	@$(if $(LEVEL),hfbench level $(LEVEL))
	@hfbench check
	@HFBENCH_TABLE=off python -m dvc repro --quiet || { echo "The pipeline stopped; \`dvc repro\` says more." >&2; exit 1; }
	@hfbench show

test: $(READY)
	ruff check .
	ruff format --check .
	mypy
	OMP_NUM_THREADS=1 pytest --numprocesses 2 --dist loadfile

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
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing hfbench and what it needs into $(VENV) (once; some minutes, and more for the CUDA build of torch) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(EXACTLY) --editable '.$(EXTRAS)'
	@touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info
