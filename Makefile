# `make demo` and `make test` set up everything they need in .venv; nothing is written outside this folder.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The version that this is developed with; TORCH='torch==... --index-url ...' takes another build of it.
TORCH ?= torch==2.13.0
export PIP_CACHE_DIR ?= $(CURDIR)/$(VENV)/pip-cache
export MPLCONFIGDIR ?= $(CURDIR)/$(VENV)/matplotlib

.PHONY: demo test test-slow test-all lint docs readme bench clean

# Needs one engine, and no more than $(VENV)/installed has where that is there.
demo: $(or $(wildcard $(VENV)/installed),$(VENV)/demo)
	$(BIN)/mofa rewrite examples/architectures/nafnet.py:NAFNet --checkpoint examples/checkpoints/nafnet_denoiser.safetensors --degrade gaussian:25 --engine onnxruntime --input 1x3x256x256 --crops 16 --crop-size 64 --minutes 3 --out out/demo --overwrite
	$(BIN)/python examples/demo.py out/demo --picture out/demo.png

# Neighbours in a file stay with one worker, which then imports and builds once what they share.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

# A fair sample of everything, in minutes.
test: $(VENV)/installed
	$(PYTEST) -m "not slow" --hypothesis-profile quick

# What `make test` leaves out, and every property with more examples.
test-slow: $(VENV)/installed
	$(PYTEST) -m "slow or hypothesis"

test-all: test test-slow

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mofa_compiler
	$(BIN)/lint-imports

# Draws the figures and makes the reference anew; a warning is an error.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --clean --config-file .mkdocs.yml

readme: $(VENV)/installed
	$(BIN)/python -m tests.docs.written
	$(BIN)/python -m tests.benchmarks.paper_table --write examples/guides/benchmarks.md

# On a machine that does nothing else: it measures. Peers: $(BIN)/pip install torch-pruning onnxslim
bench: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.deployment --peers --write examples/guides/benchmarks.md --plot examples/deployment.png --json out/deployment.json

clean:
	rm -rf $(VENV) out build dist *.egg-info

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH) -e ".[dev]"
	touch $@

$(VENV)/demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH) -e ".[demo]"
	touch $@
