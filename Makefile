# One file per artefact: what exists is not made again, and a killed run goes on where it was.
# `make help` lists the targets.

CONFIG ?= configs/quickstart.yaml
STUDY ?= configs/study.yaml
SEED ?= 0
TARGET ?= stereotypical
REFERENCE ?= anti-stereotypical
VARIANT ?= stereotypical anti-stereotypical
PYTHON ?= python3
VENV ?= .venv

NAME := $(basename $(notdir $(CONFIG)))
RUN := runs/$(NAME)
DATA := data/$(NAME)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEERS := $(VENV)/.peers
SAE_LENS := $(VENV)/.sae-lens
SETTINGS := --config $(CONFIG) --experiment $(RUN) --data.folder $(DATA) --seed $(SEED)
PRUNED := $(if $(SPARSITY),--sparsity $(SPARSITY))
IS_SHARE = $(or $(findstring .,$(K)),$(findstring e,$(K)))
SIZE := $(if $(K),$(if $(IS_SHARE),--share,--count) $(K))
PAIR := $(TARGET) $(REFERENCE) $(PRUNED) $(SIZE) \
	$(if $(LOCALIZATION),--localization $(LOCALIZATION))
EDIT := $(if $(ALPHA),--alpha $(ALPHA)) $(if $(STRATEGY),--strategy $(STRATEGY))
DEBIAS := --config configs/smollm2.yaml --config configs/debias.yaml --seed $(SEED)
VARIANTS := stereotypical anti-stereotypical neutral
SUMMARY = $(RUN)/seed-$(SEED)/$(1)/summary$(if $(SPARSITY),-$(SPARSITY)).json
trained = $(foreach variant,$(filter $(VARIANTS),$(1)),$(call SUMMARY,$(variant)))

.PHONY: help install data pretrain train-ref localize edit debias features sae audit clip lals projector evaluate study tensorboard test fuzz kills test-hub bench lint format clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: CONFIG=$(CONFIG) SEED=$(SEED) TARGET=$(TARGET) REFERENCE=$(REFERENCE)"
	@echo "  ALPHA=2 (several: ALPHA='0 1 2 4'), STRATEGY=linear|interpolation|extrapolation|pruning|mask-switch,"
	@echo "  LOCALIZATION=mask|value, K=0.1 (share) or 5000 (count), SPARSITY=0.3, VARIANT=neutral (train-ref),"
	@echo "  SCALE=0.3 (features; several: SCALE='0.3 0 -1'), ATTRIBUTE=skin-tone, HEADS=4 (audit),"
	@echo "  STUDY=configs/study-race.yaml, MODEL, AGAINST=folder or hub name, LIMIT=20 (evaluate), VENV=$(VENV), PYTHON=$(PYTHON)"

install: $(INSTALLED) ## make the virtual environment

# A torch that is in the environment already (a GPU build, say) stays: its pin is left out then.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	if $(BIN)/python -c "import torch" 2>/dev/null; then \
		grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt; \
	else \
		cp constraints.txt $(VENV)/constraints.txt; \
		$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"; \
	fi
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt --editable '.[dev,pictures,smollm2,study]'
	touch $@

# What autoencoders are compared with, in tests and benchmarks.
$(SAE_LENS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt --editable '.[sae-lens]'
	touch $@

$(PEERS): $(SAE_LENS)
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt --editable '.[bench]'
	touch $@

data: $(DATA)/report.json ## fetch text and benchmarks, and augment the text

$(DATA)/report.json: | $(INSTALLED)
	$(BIN)/lce data --config $(CONFIG) --data.folder $(DATA)

pretrain: | $(INSTALLED) ## make the bundled base model anew, in runs/base/model
	$(BIN)/lce pretrain --config configs/pretrain.yaml

train-ref: $(call trained,$(VARIANT)) ## fine-tune and prune the stereotypical and the anti-stereotypical model

$(call SUMMARY,%): $(DATA)/report.json | $(INSTALLED)
	$(BIN)/lce train $(SETTINGS) $(PRUNED) --variant $* --output $@

localize: $(call trained,$(TARGET) $(REFERENCE)) | $(INSTALLED) ## select the weights in which target and reference differ
	$(BIN)/lce localize $(PAIR) $(SETTINGS)

edit: $(call trained,$(TARGET) $(REFERENCE)) | $(INSTALLED) ## edit the target, measure, write the patch: the main job
	$(BIN)/lce edit $(PAIR) $(EDIT) $(SETTINGS)

debias: | $(INSTALLED) ## take bias out of SmolLM2 itself, by what two models trained from it learned
	for variant in stereotypical anti-stereotypical; do \
		$(BIN)/lce train $(DEBIAS) --variant $$variant || exit; \
	done
	$(BIN)/lce edit $(DEBIAS) $(SIZE) $(EDIT)

features: | $(INSTALLED) ## edit the features of an autoencoder that carry gender in SmolLM2, and measure what that does
	$(BIN)/lce edit features --config configs/features.yaml --seed $(SEED) $(if $(SCALE),--scale $(SCALE))

sae: | $(INSTALLED) ## train the bundled autoencoder of SmolLM2 anew, in runs/sae/autoencoder
	$(BIN)/lce train-sae --config configs/sae.yaml

audit: | $(INSTALLED) ## find the attention heads of a CLIP that carry gender, or ATTRIBUTE, edit them, and measure
	$(BIN)/lce edit heads --config configs/audit.yaml $(if $(ATTRIBUTE),--config configs/audit-$(ATTRIBUTE).yaml) \
		--seed $(SEED) $(if $(MODEL),--model $(MODEL)) $(if $(HEADS),--size $(HEADS))

clip: | $(INSTALLED) ## train the bundled CLIP anew, in runs/clip/model
	$(BIN)/lce pretrain-clip --config configs/clip.yaml

lals: | $(INSTALLED) ## what a vision-language model sees of gender inside and does not say, and an edit of that
	$(BIN)/lce edit directions --config configs/lals.yaml --seed $(SEED) $(if $(MODEL),--model $(MODEL))

projector: | $(INSTALLED) ## train the projector of the small vision-language model anew, in runs/vlm
	$(BIN)/lce pretrain-projector --config configs/vlm.yaml

evaluate: | $(INSTALLED) ## measure MODEL (by default the bundled one), or compare it: AGAINST=another
	$(BIN)/lce evaluate $(if $(MODEL),$(MODEL),checkpoints/lce-bert-mini) $(SETTINGS) \
		$(if $(AGAINST),--against $(AGAINST)) $(if $(LIMIT),--limit $(LIMIT))

study: | $(INSTALLED) ## run the whole study of STUDY and write its report (hours; a killed one goes on)
	$(BIN)/lce sweep --config $(STUDY); status=$$?; \
		$(BIN)/lce report $$(sed -n 's/^experiment: *//p' $(STUDY)) && exit $$status

tensorboard: | $(INSTALLED) ## look at the curves of all runs
	$(BIN)/tensorboard --logdir runs

test: | $(SAE_LENS) ## run all tests, on real data too
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal --durations 20

fuzz: | $(INSTALLED) ## all mutants of patches and model folders; `make test` tries a fifth of them
	LCE_FUZZ=all $(BIN)/python -m pytest -s tests/patch/test_fuzz.py tests/storage/test_fuzz_files.py tests/commands/test_fuzz_inputs.py

kills: | $(INSTALLED) ## end commands at many moments and fill disks; `make test` tries a few (half an hour)
	LCE_KILLS=all $(BIN)/python -m pytest -s tests/commands/test_kills.py tests/commands/test_full_disk.py

test-hub: | $(INSTALLED) ## compare with published scores; needs the Hugging Face hub
	$(BIN)/python -m pytest -m hub

bench: $(DATA)/report.json $(call trained,stereotypical anti-stereotypical) | $(PEERS) ## measure speed against peers (half an hour)
	$(BIN)/python tests/benchmarks/evaluation.py
	$(BIN)/python tests/benchmarks/training.py
	$(BIN)/python tests/benchmarks/pruning.py
	$(BIN)/python tests/benchmarks/patches.py
	$(BIN)/python tests/benchmarks/patches_peers.py
	$(BIN)/python tests/benchmarks/sweep.py
	$(BIN)/lce data --config configs/smollm2.yaml
	$(BIN)/python tests/benchmarks/decoders.py
	$(BIN)/python tests/benchmarks/autoencoders.py
	$(BIN)/python tests/benchmarks/heads.py
	$(BIN)/python tests/benchmarks/directions.py

lint: | $(INSTALLED) ## check style, format, types, and which file imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

format: | $(INSTALLED) ## put the code into the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove runs and prepared data; fetched data and the environment stay
	rm -rf runs $(filter-out data/downloads,$(wildcard data/*)) .hypothesis .pytest_cache .mypy_cache .ruff_cache
