# Everything is set up on first use; `make` alone lists the commands.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint clean

help:  ## this list
	@echo "pixel4d_ros: one camera image in, a moving 3D scene and its forecast video out"; echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16
	@echo; echo "Options of setup: PYTHON=python3.12, ROS=/opt/ros/jazzy, TORCH=a version or wheel file for pip"

setup:  ## virtual environment, ROS 2 Jazzy, packages, colcon build (seconds when done before)
	@$(or $(PYTHON),python3) tools/setup_environment.py $(if $(PYTHON),--this-python) $(if $(ROS),--ros "$(ROS)") $(if $(TORCH),--torch "$(TORCH)")

demo: setup  ## forecast a replayed driving log: out/demo/report.html (LOG=path for your own)
	@source ./env.sh && pixel4d demo --out out/demo $(if $(LOG),--log "$(LOG)")

# Three workers on two cores, one thread each: tests with ROS wait a lot. Each file's tests stay together.
# Bytecode is kept even where the machine's default is not to: processes by the dozen import the package, and pytest
# rewrites all assertions in every worker otherwise.
test: export PYTHONDONTWRITEBYTECODE :=
test: setup  ## all tests (ARGS="-k camera" for some)
ifdef ARGS
	@source ./env.sh && python -m pytest $(ARGS)
else
	@cd test && source ../env.sh && python -m support.compile_kernels
	@source ./env.sh && OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=10 $(CI_ARGS)
endif

lint: setup  ## ruff, mypy, spelling and Markdown
	@source ./env.sh && ruff check . && ruff format --check . && codespell && python tools/check_markdown.py && mypy

clean:  ## remove all that setup, tests and demo made
	rm -rf .venv build install log out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pixel4d_ros test tools -name __pycache__ -type d -prune -exec rm -rf {} +
