# make demo         train a GAN on handwritten digits and look at what it draws, then a small ablation as one program
# make test         the test suite; make test-all adds the slow tier
# make test-latest  the suite on the newest jax and flax, with a Python >= 3.12
# make lock         requirements.txt, requirements-cuda.txt and requirements-tpu.txt anew from their ranges

RUNS = import sys; sys.exit(sys.version_info < (3, $(1)))
find = $(firstword $(foreach p,$(2),$(shell $(p) -c "$(call RUNS,$(1))" 2>/dev/null && command -v $(p))))
PYTHON ?= $(call find,11,python3 python3.13 python3.12 python3.11)
LATEST ?= $(call find,12,python3.14 python3.13 python3.12 python3 $(wildcard $(HOME)/.pyenv/versions/3.1[2-9]*/bin/python3))
BIN := .venv/bin/python

.PHONY: demo test test-all test-latest lock

.venv/installed: requirements.txt
	@test -n "$(PYTHON)" || { echo "error: no python3 >= 3.11 on the PATH; name one: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

demo: .venv/installed
	@$(BIN) launch.py train --config=configs/gan_digits.py --workdir=runs/demo
	@$(BIN) launch.py sample --workdir=runs/demo --checkpoint=best --num=100 --out=runs/demo/samples.png
	@$(BIN) launch.py sweep --config=configs/vae_digits.py --grid hp.beta=0.25,1,4 --seeds=4 --config.steps=1000 --workdir=runs/demo_ablation

# Compiling takes one core: two processes share the tests and the compilation cache.
test: .venv/installed
	$(BIN) -m pytest -n 2 --dist worksteal

# With requirements-engines.txt installed, and within tests/integration/slurm.sh, nothing is skipped.
test-all: .venv/installed
	$(BIN) -m pytest --slow -n 2 --dist worksteal

.venv-latest/installed: requirements.in
	@test -n "$(LATEST)" || { echo "error: no Python >= 3.12 found; name one: make test-latest LATEST=/path/to/python3"; exit 1; }
	$(LATEST) -m venv .venv-latest
	.venv-latest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade -r requirements.in
	@touch $@

test-latest: .venv-latest/installed
	.venv-latest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade -r requirements.in
	.venv-latest/bin/python -c "import jax, flax; print('jax', jax.__version__, 'flax', flax.__version__)"
	.venv-latest/bin/python -m pytest -n 2 --dist worksteal

lock:
	uv pip compile --universal --python-version 3.11 --no-header --no-annotate --quiet -c constraints.txt requirements.in -o requirements.txt
	uv pip compile --universal --python-version 3.11 --no-header --no-annotate --quiet -c constraints.txt requirements-cuda.in -o requirements-cuda.txt
	uv pip compile --universal --python-version 3.11 --no-header --no-annotate --quiet -c requirements.txt requirements-tpu.in -o requirements-tpu.txt
