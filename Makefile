# TORCH=cpu takes torch from PyTorch's index of CPU wheels (Linux: 200 MB instead of several GB); TORCH=cuda, or nothing,
# takes it from the package index. PYTHON must be 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH_INDEX := $(if $(filter cpu,$(TORCH)),--extra-index-url https://download.pytorch.org/whl/cpu)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH_INDEX)

.PHONY: venv dev quickstart test test-slow lint bench clean

venv: $(VENV)/.base
dev: $(VENV)/.dev

$(VENV)/.base: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Earthworks needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing earthworks into $(VENV) (a minute or two)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo "installing the test tools"
	@$(PIP) -e ".[dev]"
	@touch $@

quickstart: venv
	$(BIN)/earthworks quickstart

test: dev
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: dev
	OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=full $(BIN)/python -m pytest -n 2 -m slow

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# About two hours of a quiet machine. Those that need data say so in their first lines: shakespeare.py,
# image_objectives.py, cifar10.py, evaluation.py (which also needs lm-eval and accelerate).
bench: dev
	$(BIN)/python benchmarks/attention_memory.py
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/distances.py
	$(BIN)/python benchmarks/critics.py
	$(BIN)/python benchmarks/critic_step.py
	$(BIN)/python benchmarks/mixtures.py
	$(BIN)/python benchmarks/standard_gan.py
	$(BIN)/python benchmarks/gap_and_quality.py

clean:
	rm -rf $(VENV) build *.egg-info
