PYTHON ?= python3
DATA ?= data/demo
STRATEGIES ?= v1,v2,v3,v4,v5,ids
SEEDS ?= 1,2
CASES ?= 2000
FIRST ?= 0
BIN := .venv/bin
READY := .venv/.ready
BENCH := .venv/.bench
FUXICTR := fuxictr==2.3.10

.PHONY: report test soak lab lint bench setup

report: setup  ## data -> all notebooks -> reports/index.html
	$(BIN)/mmctr report --data $(DATA) --strategies $(STRATEGIES) --seeds $(SEEDS)

# A process for each core, hence one thread for each; where a test has two, they wait asleep. What is
# compiled is kept, for many processes are started.
test: setup lint
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest \
		--numprocesses auto --maxprocesses 4 --dist worksteal

soak: setup  ## many spoilt inputs, CASES=2000 of each kind, and killed trainings
	$(BIN)/python -m tests.fuzz.soak $(CASES) $(FIRST)

lab: setup  ## the notebooks in JupyterLab
	$(BIN)/mmctr lab

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest --quiet tests/notebooks/test_clean.py

bench: setup $(BENCH)  ## speed, memory and AUC beside FuxiCTR; QUICK=1 takes 3 minutes
	$(BIN)/python -m benchmarks.speed $(if $(QUICK),--quick)

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)

$(BENCH): $(READY)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --no-build-isolation \
		--editable '.[bench]' $(FUXICTR)
	touch $(BENCH)
