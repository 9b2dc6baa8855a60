# make demo         train a GAN on handwritten digits and look at what it draws, then a small ablation as one program
# make check        lint, the unit tests and the types, with the time that each took
# make test         the test suite; make test-all adds the slow tier
# make test-browser reports in a headless Chromium, with playwright and a chromium on the PATH
# make lint         ruff: rules and format; make types: mypy
# make docs         the site, in site/index.html; any warning is an error
# make pages        the generated pages of the documentation anew: reference, results, drawings
# make bench        every training step beside PyTorch's, and their page in docs (about 40 minutes)
# make gpu          the checks that need a GPU, those that are not finished, and their page in docs; a few hours in parts of at most nine minutes
# make dist         a wheel and a source distribution in dist/
# make test-latest  the suite on the newest jax and flax, with a Python >= 3.12
# make lock         requirements.txt, requirements-cuda.txt and requirements-tpu.txt anew from the ranges of pyproject.toml
# `. .venv/bin/activate` after any of them has the command `aigc` and the scripts of benchmarks/

RUNS = import sys; sys.exit(sys.version_info < (3, $(1)))
find = $(firstword $(foreach p,$(2),$(shell $(p) -c "$(call RUNS,$(1))" 2>/dev/null && command -v $(p))))
PYTHON ?= $(call find,11,python3 python3.13 python3.12 python3.11)
LATEST ?= $(call find,12,python3.14 python3.13 python3.12 python3 $(wildcard $(HOME)/.pyenv/versions/3.1[2-9]*/bin/python3))
BIN := .venv/bin/python
AIGC := .venv/bin/aigc

PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: demo lint types docs pages bench gpu check test test-all test-browser test-latest dist lock

# The lock, then the project itself, edited in place.
.venv/installed: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no python3 >= 3.11 on the PATH; name one: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN) $(PIP) -r requirements.txt
	$(BIN) $(PIP) --no-deps --no-build-isolation -e .
	@touch $@

demo: .venv/installed
	@$(AIGC) train --config=gan_digits --workdir=runs/demo
	@$(AIGC) sample --workdir=runs/demo --checkpoint=best --num=100 --out=runs/demo/samples.png
	@$(AIGC) sweep --config=vae_digits --grid hp.beta=0.25,1,4 --seeds=4 --config.steps=1000 --workdir=runs/demo_ablation

lint: .venv/installed
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .

types: .venv/installed
	$(BIN) -m mypy

# Material announces the end of MkDocs at every build unless told not to.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN) -m mkdocs build --strict --quiet

pages: .venv/installed
	for page in make_config_reference make_reference make_results draw_rooms; do $(BIN) docs/$$page.py || exit 1; done

# PyTorch is needed: .venv/bin/pip install -r requirements-bench.txt
bench: .venv/installed
	$(BIN) benchmarks/bench.py

# JAX for CUDA and PyTorch are needed: .venv/bin/pip install -r requirements-cuda.txt -r requirements-bench.txt
# A part that was interrupted is repeated by the next `make gpu`, finished parts are not.
gpu: .venv/installed
	$(BIN) benchmarks/gpu_parts.py

# Files without the marker are not even imported, which would take as long as the tests.
UNIT = $(shell grep -rl --include='test_*.py' pytest.mark.unit tests)

check: .venv/installed
	@begun=$$(date +%s); $(BIN) -m ruff check . && $(BIN) -m ruff format --check . && \
	$(BIN) -m pytest -n 2 --dist worksteal -m unit $(UNIT) && \
	tested=$$(date +%s) && $(BIN) -m mypy && \
	echo "make check: lint and unit tests $$((tested - begun)) s, types $$(($$(date +%s) - tested)) s"

# Compiling takes one core: two processes share the tests and the compilation cache.
test: .venv/installed
	$(BIN) -m pytest -n 2 --dist worksteal

# With requirements-engines.txt installed, and within tests/integration/slurm.sh, nothing is skipped.
test-all: .venv/installed
	$(BIN) -m pytest --slow -n 2 --dist worksteal

# Without playwright (.venv/bin/pip install playwright) or a browser, the tests are skipped.
test-browser: .venv/installed
	$(BIN) -m pytest --browser -m browser tests/browser

.venv-latest/installed: pyproject.toml
	@test -n "$(LATEST)" || { echo "error: no Python >= 3.12 found; name one: make test-latest LATEST=/path/to/python3"; exit 1; }
	$(LATEST) -m venv .venv-latest
	@touch $@

test-latest: .venv-latest/installed
	.venv-latest/bin/python $(PIP) --upgrade --upgrade-strategy eager -e ".[dev]"
	.venv-latest/bin/python -c "import jax, flax; print('jax', jax.__version__, 'flax', flax.__version__)"
	.venv-latest/bin/python -m pytest -n 2 --dist worksteal

dist: .venv/installed
	$(BIN) -m hatchling build

.venv-lock/installed:
	@test -n "$(PYTHON)" || { echo "error: no python3 >= 3.11 on the PATH; name one: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python $(PIP) uv
	@touch $@

COMPILE = .venv-lock/bin/uv pip compile --universal --python-version 3.11 --no-header --no-annotate --quiet pyproject.toml --extra dev --extra hf --extra docs --extra report

lock: .venv-lock/installed
	$(COMPILE) -c constraints.txt -o requirements.txt
	$(COMPILE) -c constraints.txt --extra cuda -o requirements-cuda.txt
	$(COMPILE) -c requirements.txt --extra tpu -o requirements-tpu.txt
