# make setup  make the virtual environment and install everything (the other targets do it too)
# make demo   generate toy data, train MIMDet on it, evaluate, draw; results in output/demo
# make demo-pretrain  pretrain the toy ViT, compare detectors from it and from scratch; in
#             output/demo_pretrain
# make test   run all tests
# make lint   check the style
#
# Python 3.11 or newer is needed; PYTHON=python3.13 names the one that makes the environment.
# VENV=DIR uses another environment. If upstream Detectron2 is installed there, it is used and
# nothing of what it was built against is changed; otherwise detectron2-lite is installed.

VENV ?= .venv
PYTHON ?= python3
PY = $(VENV)/bin/python
STAMP = $(VENV)/.mimdet-setup
# In words that Python 2 understands too.
CHECK_VERSION = import sys; sys.version_info >= (3, 11) or sys.exit( \
  "mimdet needs Python 3.11 or newer, and %s is %s; name another one: make setup PYTHON=python3.13" \
  % (sys.argv[1], sys.version.split()[0]))
DEMO_OUTPUT ?= output/demo
# Threads that wait must not keep a core from other programs: on a busy machine, spinning made the
# demo's training several times slower.
export OMP_WAIT_POLICY = passive
DEMO_PRETRAIN_OUTPUT ?= output/demo_pretrain

.PHONY: setup demo demo-pretrain test lint

setup: $(STAMP)

# The uninstalled one is an early detectron2-lite, which was a distribution called detectron2.
$(STAMP): requirements.txt setup.py pyproject.toml detectron2-lite/setup.py detectron2-lite/pyproject.toml
	@python=$$(test -x $(PY) && echo $(PY) || echo $(PYTHON)); $$python -c '$(CHECK_VERSION)' $$python
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	if $(PY) -c "import detectron2, sys; sys.exit('lite' in detectron2.__version__)" 2>/dev/null; \
	then $(PY) -m pip install -e ".[dev]"; \
	else ! $(PY) -m pip show detectron2 2>/dev/null | grep -q "^Version: .*lite" \
	  || $(PY) -m pip uninstall -y detectron2; $(PY) -m pip install -r requirements.txt; fi
	touch $@

demo: setup
	$(PY) tools/demo.py --output $(DEMO_OUTPUT)

demo-pretrain: setup
	$(PY) tools/demo.py --pretrain --output $(DEMO_PRETRAIN_OUTPUT)

test: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 -q $(PYTEST_ARGS)

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
