# make help lists what can be made.
PYTHON ?= python3
PIP_ARGS ?=
EXTRAS ?=
ARGS ?=
DEMO := runs/demo
DEMO_VIDEO := runs/demo_video
BIN := .venv/bin
# Some machines set it; then every process compiles the text of all libraries anew, which takes seconds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup run run-video test coverage test-long test-oracles test-ray test-browser docs check lint types bench clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/' | expand -t 20
	@echo
	@echo "  make run ARGS='trainer.epochs=5'   pass settings to train.py"
	@echo "  make setup PIP_ARGS='OPTIONS'      for pip, such as an index of CPU builds"
	@echo "  make setup EXTRAS=pretrained       add weights that others learnt (31 MB)"
	@echo "  make setup EXTRAS=pose             add BlazePose (Linux on x86_64, 57 MB)"
	@echo "  make setup PYTHON=python3.12       choose the Python (3.11 or newer)"

setup: .venv/ready $(EXTRAS:%=.venv/extra-%) ## create .venv and install what is pinned in constraints.txt

.venv/ready: requirements.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Rivulet needs Python 3.11 or newer; choose one: make setup PYTHON=python3.11"; exit 2; }
	@echo "Installs all into .venv: some minutes, 6 GB"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -r requirements.txt -r requirements-dev.txt
	@touch $@

.venv/extra-%: requirements-%.txt .venv/ready
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check $(PIP_ARGS) --no-deps --require-hashes -r $<
	@touch $@

run: setup ## train on embedded sounds, stream a scene, classify a folder
	$(BIN)/python -m datasets.synthetic_sounds $(DEMO)/sounds
	$(BIN)/python train.py experiment=demo hydra.run.dir=$(DEMO) $(ARGS)
	$(BIN)/python infer.py checkpoint=$(DEMO) source.path=$(DEMO)/sounds/scene.wav sink.console.truth=$(DEMO)/sounds/scene.csv
	$(BIN)/python infer.py checkpoint=$(DEMO) source=files source.paths=$(DEMO)/sounds/clips sink=csv sink.csv.path=$(DEMO)/clips.csv
	@printf '\n%s\n' "How good is it? Open  $(CURDIR)/$(DEMO)/report.html"
	@echo "Next, your microphone in a page:  $(BIN)/python infer.py checkpoint=$(DEMO) source=browser"

run-video: setup ## the same with embedded motions, drawn into a video
	$(BIN)/python -m datasets.moving_shapes $(DEMO_VIDEO)/shapes
	$(BIN)/python train.py experiment=moving_shapes hydra.run.dir=$(DEMO_VIDEO) $(ARGS)
	$(BIN)/python infer.py checkpoint=$(DEMO_VIDEO) source.path=$(DEMO_VIDEO)/shapes/scene.mp4 sink.console.truth=$(DEMO_VIDEO)/shapes/scene.csv
	$(BIN)/python infer.py checkpoint=$(DEMO_VIDEO) source.path=$(DEMO_VIDEO)/shapes/scene.mp4 sink=video sink.video.path=$(DEMO_VIDEO)/answers.mp4
	$(BIN)/python infer.py checkpoint=$(DEMO_VIDEO) source=files source.paths=$(DEMO_VIDEO)/shapes/clips sink=csv sink.csv.path=$(DEMO_VIDEO)/clips.csv
	@printf '\n%s\n' "The scene with the answers drawn in: $(DEMO_VIDEO)/answers.mp4"
	@echo "How good is it? Open  $(CURDIR)/$(DEMO_VIDEO)/report.html"
	@echo "Next, your camera in a page:  $(BIN)/python infer.py checkpoint=$(DEMO_VIDEO) source=browser"

test: setup ## run the tests, and print the slowest of them
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not long and not browser" --durations=20

coverage: setup ## the same, and print which share of the lines they run
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not long and not browser" --cov --cov-report=term:skip-covered

test-long: setup ## run the tests that take minutes, too
	$(BIN)/python -m pytest -n auto --dist worksteal

test-oracles: setup .venv-oracles/ready ## compare cells with Keras, in its own environment (2 GB)
	.venv-oracles/bin/python tests/oracles/keras_reference.py .venv-oracles/keras.npz
	RIVULET_KERAS=.venv-oracles/keras.npz $(BIN)/python -m pytest -s tests/test_oracle_keras.py

.venv-oracles/ready: tests/oracles/requirements.txt
	$(PYTHON) -m venv .venv-oracles
	.venv-oracles/bin/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r tests/oracles/requirements.txt
	@touch $@

test-ray: setup .venv-ray/ready ## classify on a cluster, with Ray in its own environment
	.venv-ray/bin/python -m pytest tests/test_ray.py

.venv-ray/ready: tests/cluster/requirements.txt .venv/ready
	$(BIN)/python -m venv .venv-ray
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$(.venv-ray/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rivulet.pth"
	.venv-ray/bin/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -r tests/cluster/requirements.txt
	@touch $@

test-browser: setup .venv/browser ## the pages in headless Chromium (Debian: installs it)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "browser and not long" tests/test_teach.py tests/test_serving_page.py

.venv/browser: requirements-browser.txt .venv/ready
	@command -v chromium chromium-browser > /dev/null || \
		{ apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends chromium; } || \
		echo "Chromium is missing, and could not be installed; the tests that need it will be skipped"
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -r $<
	@touch $@

docs: setup .venv/docs ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "Written: site/index.html (to search in it: $(BIN)/python -m http.server --bind 127.0.0.1 -d site)"

.venv/docs: requirements-docs.txt .venv/ready
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -r $<
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: lint types test ## what must be green: ruff, mypy, tests

bench: setup ## latency, cells and whole folders beside other libraries
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/cells.py
	$(BIN)/python benchmarks/batch.py

clean: ## remove the environment and the runs
	rm -rf .venv .venv-oracles .venv-ray runs
