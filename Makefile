# Everything from a bare checkout: each target makes what it needs.
PYTHON ?= python3
BIN := .venv/bin
# Two files of tests at a time; the tests of one file stay together, for what they share is made once a file.
# One thread each: threads that wait for one another spin, and two lots of them on two cores starve each other. Ray's
# workers are as nice as the tests: at 15 more, as Ray has them, they hardly run beside tests that compute.
PYTEST := OMP_NUM_THREADS=1 RAY_worker_niceness=0 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo test test-full chaos check resources clean

.venv/installed: requirements.lock proxy.lock tests/servers.lock tests/peers.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock -r proxy.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r tests/servers.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r tests/peers.lock # in no image
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

pipelines/resources/NOTICE.txt: .venv/installed infra/fetch.py pipelines/resources.py
	$(BIN)/python -m infra.fetch
	touch $@

resources: pipelines/resources/NOTICE.txt

demo: resources
	$(BIN)/gristmill demo --out demo

check: resources
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Its generated examples are the same every time; those of `make test-full` are new ones.
test: resources
	$(PYTEST) --hypothesis-profile ci -m "not full"

# With `make chaos` everything that is promised: in an hour, and in half an hour. Three files at a time: with two, the
# tests on Ray leave a quarter of two cores waiting; but nothing beside the tests of time, which share cores and caches.
# Files in the order of their names: by their number of tests the longest test of all came last, alone.
# Both lots run, whatever fails.
test-full: resources
	failed=0; \
	$(PYTEST) -n 0 -o timeout=3600 -m timed || failed=1; \
	$(PYTEST) -n 3 -o timeout=3600 --ignore tests/chaos -m "not timed" --no-loadscope-reorder || failed=1; \
	exit $$failed

chaos: resources
	$(PYTEST) -o timeout=1800 tests/chaos

clean:
	rm -rf demo out .venv pipelines/resources
