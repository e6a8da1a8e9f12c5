# `make` lists what there is. GNU make 3.81 (macOS) will do.

# The environment's own programs come first, so that notebooks find saved_model_cli.
RUN = PATH="$$PWD/.venv/bin:$$PATH" VIRTUAL_ENV="$$PWD/.venv" .venv/bin/python

# Whatever Python environment the caller sits in must not leak into ours.
unexport PYTHONHOME
unexport PYTHONPATH
unexport PYTHONSTARTUP

.PHONY: help lab test test-package test-notebooks lint setup demo notebooks bench soak pins clean

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

lab: setup ## open JupyterLab at the first notebook
	@$(RUN) scripts/lab.py

test: setup ## all checks: lint, types, package tests, every notebook through nbval
	@$(RUN) scripts/check.py

test-package: setup ## only the package's tests
	@$(RUN) scripts/check.py package

test-notebooks: setup ## only the notebooks, each output compared
	@$(RUN) scripts/check.py notebooks

lint: setup ## only ruff and mypy
	@$(RUN) scripts/check.py lint

setup: ## make .venv, or bring it up to date (the others do so themselves)
	@sh scripts/setup.sh

demo: setup ## the whole road in the terminal, about a minute
	@$(RUN) scripts/demo.py

notebooks: setup ## execute all notebooks in place, refreshing their outputs
	@$(RUN) scripts/run_notebooks.py

bench: setup ## measure clients and server on this machine
	@$(RUN) -m benchmarks

soak: setup ## ten minutes of load, fuzz and changes against the embedded server (MINUTES=10)
	@$(RUN) tests/soak.py --minutes $(or $(MINUTES),10)

pins: setup ## resolve requirements.txt anew (needs uv; UPGRADE=--upgrade for the newest)
	@$(RUN) scripts/pins.py $(UPGRADE)

clean: ## remove .venv, caches, and the models that the notebooks made
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis notebooks/models
	find . -name .git -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
