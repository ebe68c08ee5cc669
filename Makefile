# TORCH=cpu takes torch from PyTorch's index of CPU wheels (Linux: 200 MB instead of several GB); TORCH=cuda, or nothing,
# takes it from the package index. PYTHON must be 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH_INDEX := $(if $(filter cpu,$(TORCH)),--extra-index-url https://download.pytorch.org/whl/cpu)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH_INDEX)

# The tests of the package's core, for `test-minimum`: a few minutes, and every library it depends on is used.
CORE := tests/runs tests/report tests/test_cli.py tests/test_statistics.py tests/test_dependencies.py \
	tests/corpus/test_build.py tests/corpus/test_packing.py tests/corpus/test_rules.py tests/corpus/test_tokenizer.py \
	tests/gopher/test_attention_tiled.py tests/gopher/test_decoding.py tests/gopher/test_resume.py \
	tests/gopher/test_tile.py tests/transport/test_exact.py tests/transport/test_measure.py \
	tests/wgan/test_datasets.py tests/wgan/test_gan_resume.py tests/wgan/test_sampling.py

.PHONY: venv dev quickstart test test-slow storm test-minimum lint dist bench clean

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
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu"

test-slow: dev
	OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=full $(BIN)/python -m pytest -n 2 -m slow

# Kills, full disks, changing files, a moved clock: each piece at most 10 minutes (docs/reliability.md). PIECE=build for one.
storm: dev
	@mkdir -p build
	cd tests && OMP_NUM_THREADS=1 ../$(BIN)/python -m storm $(PIECE) --table ../build/storm.md

# The oldest versions that pyproject.toml allows, all at once (torch: the tested one), in an environment of their own.
MINIMUM := .venv-minimum
MINIMUM_PIP := $(MINIMUM)/bin/python -m pip install --quiet --disable-pip-version-check

$(MINIMUM)/.done: pyproject.toml constraints.txt tests/lower_bounds.py
	@test -x $(MINIMUM)/bin/python || $(PYTHON) -m venv $(MINIMUM)
	@echo "installing the oldest versions allowed into $(MINIMUM) (a minute or two)"
	@$(MINIMUM)/bin/python tests/lower_bounds.py > $(MINIMUM)/constraints.txt
	@$(MINIMUM_PIP) -c $(MINIMUM)/constraints.txt $(TORCH_INDEX) -e . pytest pytest-xdist hypothesis
	@touch $@

test-minimum: $(MINIMUM)/.done
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 HYPOTHESIS_PROFILE=few $(MINIMUM)/bin/python -m pytest -n 2 \
		-m "not slow and not gpu" $(CORE)

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell --dictionary - --dictionary tests/banned_words.txt src tests docs benchmarks examples .github *.md Makefile \
		pyproject.toml

# A wheel and a source archive in dist/, and the wheel's quickstart, half a minute of it, in an empty environment.
dist: dev
	@rm -rf build/dist dist
	@$(PIP) build
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv build/dist
	build/dist/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH_INDEX) dist/*.whl
	cd build/dist && bin/earthworks quickstart --run started --minutes 0.5

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
	rm -rf $(VENV) $(MINIMUM) build *.egg-info
