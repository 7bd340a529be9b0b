# All that is needed is Python 3.11 or newer and make: each target sets up what it uses, in folders of this checkout.

PYTHON ?= $(shell .ci/find_python.sh)
# not every peer of the benchmarks exists for the newest Python
BENCH_PYTHON ?= $(shell .ci/find_python.sh 3.12 2>/dev/null || .ci/find_python.sh 3.11 2>/dev/null || .ci/find_python.sh)
VENV := .venv
BIN := $(VENV)/bin/python
BENCH := .venv-bench
COMPARE := .venv-compare
SPARK := .venv-spark
INPUTS := pyproject.toml constraints.txt .ci/make_venv.sh
EXAMPLES := $(patsubst %/run.py,%,$(wildcard examples/*/run.py))

.NOTPARALLEL: # targets share an environment
.PHONY: help demo demo-delegation demo-desk test test-spark check lint types wheel-test laws bench compare accept test-all-pythons clean

help:
	@echo "make demo              run a bank assistant's real tool calls under a policy"
	@echo "make demo-delegation   pass a person's authority on over four processes, and attack it on the way"
	@echo "make demo-desk         a support desk's agents, budgets, a review in another process, and a kill switch"
	@echo "make test              run every test; that on Apache Spark skips"
	@echo "make test-spark        the replay on Apache Spark, where Java 17 or newer is: in an environment of its own"
	@echo "make check             lint, types, the wheel, and every test, that on Spark too: what CI runs"
	@echo "make laws              the long run of the property tests and of the faults"
	@echo "make bench             the benchmarks, beside other policy engines"
	@echo "make compare           faults, put to our log and to other packages' (the full disk needs root on Linux)"
	@echo "make accept            rewrite the golden files, for review with git diff"
	@echo "make test-all-pythons  every test on each Python that we support"
	@echo "make clean             remove what the other targets made"

# ---- environments: a stamp says what an environment holds; test includes core, dev includes test

$(VENV)/.core: $(INPUTS)
	@.ci/make_venv.sh "$(PYTHON)" $(VENV) "" constraints.txt
	@touch $@

$(VENV)/.test: $(INPUTS)
	@.ci/make_venv.sh "$(PYTHON)" $(VENV) test constraints.txt
	@touch $(VENV)/.core $@

$(VENV)/.dev: $(INPUTS)
	@.ci/make_venv.sh "$(PYTHON)" $(VENV) dev constraints.txt
	@touch $(VENV)/.core $(VENV)/.test $@

$(BENCH)/.bench: $(INPUTS) benchmarks/constraints.txt
	@.ci/make_venv.sh "$(BENCH_PYTHON)" $(BENCH) bench benchmarks/constraints.txt
	@touch $@

$(COMPARE)/.compare: $(INPUTS) benchmarks/faults/constraints.txt
	@.ci/make_venv.sh "$(BENCH_PYTHON)" $(COMPARE) compare benchmarks/faults/constraints.txt
	@touch $@

$(SPARK)/.spark: $(INPUTS)
	@.ci/make_venv.sh "$(PYTHON)" $(SPARK) test,spark constraints.txt
	@touch $@

# ---- what people run

demo: $(VENV)/.core
	@$(BIN) examples/banking_agent/run.py

demo-delegation: $(VENV)/.test
	@$(BIN) examples/delegation/run.py

demo-desk: $(VENV)/.core
	@$(BIN) examples/support_desk/run.py

test: $(VENV)/.test
	$(BIN) -m pytest -q -n 2

# pyspark takes 400 MB and minutes, so that it isn't fetched for nothing where Spark can't run
test-spark:
	@if why=$$(.ci/find_java.sh); then \
		$(MAKE) --no-print-directory $(SPARK)/.spark && $(SPARK)/bin/python -m pytest -q tests/test_replay_spark.py; \
	else \
		echo "the test on Apache Spark is left out: $$why"; \
	fi

# import contracts, docs and examples are tests, so the one run of them checks those too
check: lint types wheel-test test test-spark

lint: $(VENV)/.dev
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .

# an example is a program of its own, whose run.py imports the files beside it and the shared ones: each is checked
# from its folder
types: $(VENV)/.dev
	$(BIN) -m mypy agentauthz tests benchmarks .ci/wheel_smoke.py $(wildcard examples/*.py)
	@for example in $(EXAMPLES); do \
		echo "mypy $$example"; \
		(cd $$example && MYPYPATH=../shared $(CURDIR)/$(BIN) -m mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache .) || exit 1; \
	done

wheel-test: $(VENV)/.dev
	.ci/wheel_test.sh $(BIN)

laws: $(VENV)/.test
	HYPOTHESIS_PROFILE=long $(BIN) -m pytest -q -n auto tests/laws tests/faults tests/test_state_model.py tests/test_state_races.py tests/test_windows.py

bench: $(BENCH)/.bench
	$(BENCH)/bin/python benchmarks/run.py

compare: $(COMPARE)/.compare
	$(COMPARE)/bin/python benchmarks/faults/run.py
	@echo "review what changed: git diff docs/comparison"

accept: $(VENV)/.test
	AGENTAUTHZ_ACCEPT=1 $(BIN) -m pytest -q -n 2
	@git status --short -- tests examples docs
	@echo "review what changed: git diff"

test-all-pythons:
	.ci/test_all_pythons.sh

clean:
	rm -rf $(VENV) $(BENCH) $(COMPARE) $(SPARK) .venvs build dist .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find agentauthz tests examples benchmarks .ci -name __pycache__ -type d -prune -exec rm -rf {} +
