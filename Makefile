# `make demo` and `make test` set up everything they need in .venv; nothing is written outside this folder.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The version that this is developed with; TORCH='torch==... --index-url ...' takes another build of it.
TORCH ?= torch==2.13.0
export PIP_CACHE_DIR ?= $(CURDIR)/$(VENV)/pip-cache
export MPLCONFIGDIR ?= $(CURDIR)/$(VENV)/matplotlib

.PHONY: demo test lint docs readme bench clean

demo: $(VENV)/installed
	$(BIN)/mofa rewrite examples/architectures/nafnet.py:NAFNet --checkpoint examples/checkpoints/nafnet_denoiser.safetensors --roadmap mofa --input 1x3x256x256 --out out/demo --overwrite
	$(BIN)/python examples/demo.py out/demo --picture out/demo.png

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mofa_compiler

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
