# make demo   the whole pipeline on a generated toy catalogue
# make demo-real   the same on MovieLens-100K and SmolLM2-135M, out of Python packages; 20 minutes on 2 CPU cores
# make test   the tests, the tiny journey included;  make test-slow adds the slow ones
# make lint   style
# make test-newest   the tests with the newest versions that pyproject.toml allows, in .venv-newest
# make lock   the same, and what passed becomes constraints/pyXY.txt: the versions that the others above install
# PYTHON=python3.12 make ... chooses the interpreter that .venv is made with.
PYTHON ?= python3
unexport PYTHON  # the shell scripts have a PYTHON too: the interpreter that runs them, which is that of .venv here
VENV ?= .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: python demo demo-real test test-slow test-newest lock lint install clean

demo: $(VENV)/.installed
	bash examples/tiny/run.sh

demo-real: $(VENV)/.installed
	bash examples/demo_real/run.sh

# a file's tests stay in one process, which shares their models; TEST_PROCESSES=0 runs all in this one
TEST_PROCESSES ?= 2
PYTEST := python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile

test: $(VENV)/.installed
	$(PYTEST) -m "not slow and not gpu"

test-slow: $(VENV)/.installed
	$(PYTEST) -m "not gpu"

lint: $(VENV)/.installed
	ruff check .
	ruff format --check .

install: $(VENV)/.installed

test-newest:
	constraints/newest.sh $(PYTHON)

lock:
	constraints/newest.sh $(PYTHON) --lock

python:
	@constraints/check_python.sh "$(PYTHON)" "$(VENV)" "$(origin PYTHON)"

# made anew when the dependencies or the tested versions change
$(VENV)/.installed: pyproject.toml $(wildcard constraints/*.txt) | python
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints/$$($(BIN)/python -c 'import sys; print("py%d%d" % sys.version_info[:2])').txt -e '.[dev]'
	touch $@

clean:
	rm -rf data/toy data/toy_raw saves/tiny rl_outputs/tiny results/tiny
