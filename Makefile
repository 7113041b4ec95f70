# Everything the README and the continuous integration run, by the same names.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
JOBS   ?= 2
# One thread a process: the tests run JOBS processes.
TEST_ENV := OMP_NUM_THREADS=1
PYTEST   := $(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
# More examples, and shapes and types of every annotated function checked as the tests run.
THOROUGH := --hypothesis-profile=thorough --jaxtyping-packages=labelwise,beartype.beartype

.PHONY: install lint types types-page test test-pages test-more test-families test-all demo bench recipes clean

install: $(VENV)/.installed

# What both of these require besides serves their own experiments and pictures.
$(VENV)/.installed: pyproject.toml constraints.txt hatch_build.py src/labelwise/pages/web/package-lock.json
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mace,dev]'
	$(BIN)/python -m pip install --quiet --no-deps bmdal-reg==3.0.2 uncertainty-toolbox==0.1.1
	@touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install types-page
	$(BIN)/mypy

# Types of the JavaScript of reports; npm fetches the checker.
types-page:
	command -v npm || { echo "no npm: JavaScript is not checked"; exit 0; } && \
	    npm exec --yes --package=typescript@7.0.2 -- tsc -p src/labelwise/pages/web

# The tiers: docs/testing.md.
test: install
	$(PYTEST)

test-pages: install
	$(PYTEST) -m pages

# What test leaves out and .ci/run has time for.
test-more: install
	$(PYTEST) -m "(pages or thorough or hypothesis) and not slow" $(THOROUGH)

# Other families, of which SevenNet does not install beside mace-torch, which pins e3nn 0.4.4.
FAMILIES := .venv-families
test-families:
	test -x $(FAMILIES)/bin/python || $(PYTHON) -m venv $(FAMILIES)
	grep -vE '^(e3nn|mace-torch)==' constraints.txt > $(FAMILIES)/constraints.txt
	$(FAMILIES)/bin/python -m pip install --quiet --constraint $(FAMILIES)/constraints.txt \
	    --editable '.[sevenn,chgnet,mlip]' nequip pytest
	$(TEST_ENV) JAX_COMPILATION_CACHE_DIR=$(FAMILIES)/jax $(FAMILIES)/bin/python -m pytest \
	    --noconftest -m "not (slow or thorough)" tests/potentials/sevennet \
	    tests/potentials/chgnet tests/potentials/mlip tests/potentials/test_nequip_example.py

test-all: install
	$(PYTEST) -m "" $(THOROUGH)

demo: install
	$(BIN)/labelwise demo demo --force
	$(BIN)/labelwise select --model demo --train demo/train.extxyz --pool demo/pool.extxyz \
	    -n 25 --representation ntk-e --rule lcmd --group-by reaction --out demo/batch.extxyz \
	    --report
	test -e demo/campaign.yaml || $(BIN)/labelwise campaign init demo --template
	$(BIN)/labelwise campaign run demo --rounds 2
	@echo
	@echo "Look at what was chosen and why: demo/batch.html, and round by round: demo/report.html"

# Compare with the table in benchmarks/results; a quick look, not the whole table.
bench: install
	$(BIN)/python benchmarks/representations.py
	$(BIN)/python benchmarks/selection.py --quick --out $(VENV)/selection

# The embedded model and reactions, from nothing: about two hours on two cores.
recipes: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[descriptors,xtb]'
	$(BIN)/python recipes/make_molecules.py
	$(TEST_ENV) $(BIN)/python recipes/make_training_set.py --processes $(JOBS)
	$(TEST_ENV) $(BIN)/python recipes/make_reactions.py
	$(TEST_ENV) $(BIN)/python recipes/pretrain.py --minutes 70
	$(TEST_ENV) $(BIN)/python recipes/write_card.py

clean:
	rm -rf $(VENV) $(FAMILIES) demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
