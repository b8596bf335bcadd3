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
	@echo "  make run ARGS='trainer.epochs=5'                pass overrides to train.py"
	@echo "  make setup PIP_ARGS='OPTIONS'                pass options to pip, e.g. an index with CPU builds of torch"
	@echo "  make setup EXTRAS=pretrained                 add packages with weights that others have learnt (31 MB)"
	@echo "  make setup EXTRAS=pose                       add BlazePose and what runs it (Linux on x86_64, 57 MB)"
	@echo "  make setup PYTHON=python3.12                    choose the Python (3.11 or newer)"

setup: .venv/ready $(EXTRAS:%=.venv/extra-%) ## create .venv and install what is pinned in constraints.txt

.venv/ready: requirements.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Rivulet needs Python 3.11 or newer; choose one: make setup PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -r requirements.txt -r requirements-dev.txt
	@touch $@

.venv/extra-%: requirements-%.txt .venv/ready
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check $(PIP_ARGS) --no-deps --require-hashes -r $<
	@touch $@

run: setup ## train on embedded sounds, stream a scene, classify a folder: the whole product in three commands
	$(BIN)/python -m datasets.synthetic_sounds $(DEMO)/sounds
	$(BIN)/python train.py experiment=demo hydra.run.dir=$(DEMO) $(ARGS)
	$(BIN)/python infer.py checkpoint=$(DEMO)/model.safetensors source.path=$(DEMO)/sounds/scene.wav sink.console.truth=$(DEMO)/sounds/scene.csv
	$(BIN)/python infer.py checkpoint=$(DEMO)/model.safetensors source=files source.paths=$(DEMO)/sounds/clips sink=csv sink.csv.path=$(DEMO)/clips.csv
	@echo
	@echo "Written:"
	@echo "  $(DEMO)/report.html          a page about the training: open it in a browser"
	@echo "  $(DEMO)/model.safetensors    the model, one file"
	@echo "  $(DEMO)/metrics.json         how good it is; history.jsonl and tensorboard/ how it got there"
	@echo "  $(DEMO)/sounds/              the scene with its truth, and the clips"
	@echo "  $(DEMO)/clips.csv            the answer for each clip"
	@echo "Try next:"
	@echo "  $(BIN)/python infer.py checkpoint=$(DEMO)/model.safetensors source=microphone"
	@echo "  $(BIN)/python train.py dataset=folder dataset.root=FOLDER_WITH_ONE_SUBFOLDER_PER_CLASS"
	@echo "  $(BIN)/python train.py --help"

run-video: setup ## the same with pictures: train on embedded motions, stream a scene, draw the answers into it
	$(BIN)/python -m datasets.moving_shapes $(DEMO_VIDEO)/shapes
	$(BIN)/python train.py experiment=moving_shapes hydra.run.dir=$(DEMO_VIDEO) $(ARGS)
	$(BIN)/python infer.py checkpoint=$(DEMO_VIDEO)/model.safetensors source.path=$(DEMO_VIDEO)/shapes/scene.mp4 sink.console.truth=$(DEMO_VIDEO)/shapes/scene.csv
	$(BIN)/python infer.py checkpoint=$(DEMO_VIDEO)/model.safetensors source.path=$(DEMO_VIDEO)/shapes/scene.mp4 sink=video sink.video.path=$(DEMO_VIDEO)/answers.mp4
	$(BIN)/python infer.py checkpoint=$(DEMO_VIDEO)/model.safetensors source=files source.paths=$(DEMO_VIDEO)/shapes/clips sink=csv sink.csv.path=$(DEMO_VIDEO)/clips.csv
	@echo
	@echo "Written:"
	@echo "  $(DEMO_VIDEO)/answers.mp4          the scene with the answers drawn in: look at it"
	@echo "  $(DEMO_VIDEO)/report.html          a page about the training: open it in a browser"
	@echo "  $(DEMO_VIDEO)/model.safetensors    the model, one file"
	@echo "  $(DEMO_VIDEO)/metrics.json         how good it is, and how soon"
	@echo "  $(DEMO_VIDEO)/clips.csv            the answer for each clip"
	@echo "Try next:"
	@echo "  $(BIN)/python infer.py checkpoint=$(DEMO_VIDEO)/model.safetensors source=webcam sink=window"
	@echo "  $(BIN)/python train.py dataset=folder dataset.root=FOLDER extractor=optical_flow encoder=image_recurrent augment=pictures"

test: setup ## run the tests, and print the slowest of them
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not long and not browser" --durations=20

coverage: setup ## the same, and print which share of the lines they run, which takes half as long again
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not long and not browser" --cov --cov-report=term:skip-covered

test-long: setup ## run the tests that take minutes, too
	$(BIN)/python -m pytest -n auto --dist worksteal

test-oracles: setup .venv-oracles/ready ## compare cells with Keras; installs TensorFlow in an environment of its own
	.venv-oracles/bin/python tests/oracles/keras_reference.py .venv-oracles/keras.npz
	RIVULET_KERAS=.venv-oracles/keras.npz $(BIN)/python -m pytest -s tests/test_oracle_keras.py

.venv-oracles/ready: tests/oracles/requirements.txt
	$(PYTHON) -m venv .venv-oracles
	.venv-oracles/bin/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r tests/oracles/requirements.txt
	@touch $@

test-ray: setup .venv-ray/ready ## classify on a cluster; installs Ray in an environment of its own, beside what .venv has
	.venv-ray/bin/python -m pytest tests/test_ray.py

.venv-ray/ready: tests/cluster/requirements.txt .venv/ready
	$(BIN)/python -m venv .venv-ray
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$(.venv-ray/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rivulet.pth"
	.venv-ray/bin/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -r tests/cluster/requirements.txt
	@touch $@

test-browser: setup .venv/browser ## the pages in headless Chromium (on Debian it is installed if missing)
	$(BIN)/python -m pytest -m "browser and not long" tests/test_serving_page.py tests/test_teach.py

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

check: lint types test ## everything that must be green: ruff, mypy, tests (with the plan of the house)

bench: setup ## latency, cells and whole folders beside the peers; results are printed and kept as text
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/cells.py
	$(BIN)/python benchmarks/batch.py

clean: ## remove the environment and the runs
	rm -rf .venv .venv-oracles .venv-ray runs
