# make bench   measure what params.yaml asks for, then show the results; LEVEL=2 first writes that coverage preset there
# make test    lint, types, unit tests, and the real pipeline on a small sweep
# make example-kernel   measure the kernel in examples/kernels/rmsnorm-cpu against the built-in layer (docs/kernels.md)
# The first of either sets up .venv; PYTHON names another interpreter for it.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: bench test example-kernel setup clean
.DEFAULT_GOAL := bench

bench: $(READY)
	@$(if $(LEVEL),hfbench level $(LEVEL))
	@hfbench check
	@HFBENCH_TABLE=off dvc repro --quiet || { echo "The pipeline stopped; \`dvc repro\` says more." >&2; exit 1; }
	@hfbench show

test: $(READY)
	ruff check .
	ruff format --check .
	mypy
	OMP_NUM_THREADS=1 pytest --numprocesses 2 --dist loadfile

KERNEL := {layer: RMSNorm, device: cpu, path: examples/kernels/rmsnorm-cpu, layer_name: RMSNorm}

example-kernel: $(READY)
	HFBENCH_TABLE=off dvc exp run --quiet --set-param 'kernels=[$(KERNEL)]' --set-param 'device=cpu' \
		--set-param 'sweep.attn_implementation=[eager]' --set-param 'sweep.use_kernels=[false, true]' \
		--set-param 'sweep.batch_size=[1]'
	@hfbench show
	@hfbench show --point 'eager kernels'
	@hfbench compare --axis use_kernels

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "hfbench needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing hfbench and what it needs into .venv (once; some minutes, and more for the CUDA build of torch) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info
