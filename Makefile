# `make demo` and `make test` set up everything they need in .venv; a second run reuses it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SNAKEMAKE := $(BIN)/python -m snakemake --profile workflow/profiles/default
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: demo test test-python lint lock schema bench bench-dag bench-quality bench-real clean

demo: $(VENV)/installed
	@# steps done, and not a block of text for each job; why one failed is told when the run ends, of its log's last line
	@$(SNAKEMAKE) --quiet rules host
	@# the run's own page is its last product: Snakemake's report is up to date where it is newer
	@if [ ! results/demo/snakemake-report.html -nt results/demo/report.html ]; then \
		$(SNAKEMAKE) --report results/demo/snakemake-report.html --quiet all && cat results/demo/comparison.md; fi
	@echo
	@echo "table:    results/demo/comparison.md, .csv, .tex"
	@echo "report:   results/demo/report.html; Snakemake's: results/demo/snakemake-report.html"
	@echo "pictures: $$(echo results/demo/*/*/images.png)"

test: $(VENV)/installed
	@$(MAKE) --no-print-directory --jobs 2 test-python lint

test-python: $(VENV)/installed
	@# a file's tests stay on one worker: those of the workflow share one finished run, and take longest, so come first
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed
	$(BIN)/ruff check ssdenoise tests
	$(BIN)/ruff format --check ssdenoise tests
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(SNAKEMAKE) --lint

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), 'ssdenoise needs Python 3.11 or later, found ' + sys.version"
	$(PYTHON) -m venv $(VENV)
	@# torch by itself and first, at its exact version: the machine's own build (CPU or CUDA) then satisfies the lock
	$(BIN)/python -m pip install --quiet $$(grep '^torch==' requirements.lock)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

# After a change of the dependencies in pyproject.toml.
lock:
	$(BIN)/python -m pip install --quiet pip-tools
	@# the machine's own build of torch: that of the index may bring NVIDIA packages, which the lock does not pin
	sed -i "s/^torch==.*/torch==$$($(BIN)/python -c 'from importlib.metadata import version; print(version("torch"))')/" requirements.lock
	$(BIN)/pip-compile --quiet --extra dev --extra export --extra view --strip-extras --no-emit-index-url --no-emit-find-links --output-file requirements.lock pyproject.toml
	@# the build tag of this machine's torch is not part of the pin
	sed -i 's/^\(torch==[0-9.]*\)+.*/\1/' requirements.lock

schema: $(VENV)/installed
	$(BIN)/python -m ssdenoise schema > config/schema.json

# PEER: an environment with CAREamics, tensorstore, ngff-zarr and bioio-conversion; ONLY: names of tables.
bench: $(VENV)/installed
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE PEER=$(PEER) ONLY=$(ONLY) $(BIN)/python -m tests.benchmarks

# JOBS: up to how many jobs, roughly, projects are tried.
bench-dag: $(VENV)/installed
	$(if $(JOBS),JOBS=$(JOBS)) $(BIN)/python -m tests.benchmarks.dag

# The settings of OpenBLAS that are taken away slow it down, for the sake of old versions of it.
# PEER: an environment with CAREamics. DATA: a folder with bsd400_train_gray180/ and bsd68_gray/, or with the images
# that config/protocols/real-noise.tsv names.
DATA ?= data
bench-quality: $(VENV)/installed
	$(if $(PEER),,$(error usage: make bench-quality PEER=VENV [DATA=FOLDER]))
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python -m tests.benchmarks.quality $(DATA) $(PEER)

bench-real: $(VENV)/installed
	$(if $(PEER),,$(error usage: make bench-real PEER=VENV [DATA=FOLDER]))
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python -m tests.benchmarks.real $(DATA) $(PEER)

clean:
	rm -rf $(VENV) .snakemake
