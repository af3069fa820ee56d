"""The names of all artefacts, and where what lce ships is found.

data/<name>/             examples.parquet, report.json, config.yaml, made-with.yaml
runs/<name>/
    scores/              scores of unedited models, measured once
    evaluations/         what `lce evaluate` measured: <name>.json, and <name>/ with report.html and the items
    seed-0/
        stereotypical/   sparsity-00/, sparsity-30/, … : one subnetwork each, and summary.json; train.lock is held
                         while a training is at work
        anti-stereotypical/
        selections/      what `lce localize` found
        edits/<edit>/    result.json, the patches, the figures, config.yaml
    autoencoder/         what `lce train-sae` made, with checkpoints/, logs/ and record.json beside it
    selections/, edits/  what `lce localize features` and `lce edit features` made
    cells/               results of a study: <cell>.json, or <cell>.failed with the reason, or <cell>.running
    report/              what `lce report` wrote about it
    base.json            what identifies the base model of a study
    sweep.lock           held while a sweep is at work

What lce ships, configs/ and checkpoints/, is at the top of the repository, or in share/lce of an installation.
"""

import sysconfig
from pathlib import Path

EXAMPLES = "examples.parquet"
SENTENCES = "sentences.parquet"
REPORT = "report.json"
RESULT = "result.json"
SCORES = "scores"
CONFIG = "config.yaml"
MADE_WITH = "made-with.yaml"
DAMAGED = ".damaged"
"""Suffix of a checkpoint that could not be read and was put aside."""
SUMMARY = "summary.json"
SUBNETWORK = "subnetwork"
"""Folder, inside a saved model, with what plain transformers does not know of: mask, pruned values, record."""
BASE = "base.json"
CELLS = "cells"
FAILED = ".failed"
RUNNING = ".running"
LOCK = "sweep.lock"
TRAIN_LOCK = "train.lock"
DATA_LOCK = "prepare.lock"
STUDY_REPORT = "report"
MASK = "mask.safetensors"
PRUNED_VALUES = "pruned_values.safetensors"
RECORD = "record.json"
SHIPPED = (("configs",), ("checkpoints",))
"""First parts of the paths that lce ships."""


def variant_folder(run: str | Path, seed: int, variant: str) -> Path:
    return Path(run) / f"seed-{seed}" / variant


def level_folder(variant_folder: str | Path, sparsity: float) -> Path:
    """Folder of the subnetwork with ``sparsity`` in [0, 1): sparsity-30, or sparsity-12.5."""
    return Path(variant_folder) / f"sparsity-{100 * sparsity:04.1f}".removesuffix(".0")


def shipped(path: str | Path) -> Path:
    """Where to read ``path`` from: as it is, or, if lce ships it and there is none here, from where lce lies.

    So configs/quickstart.yaml and checkpoints/lce-bert-mini are found from every working directory.
    """
    path = Path(path)
    if path.parts[:1] not in SHIPPED or path.exists():
        return path
    top = Path(__file__).parents[2]
    user = sysconfig.get_path("data", sysconfig.get_preferred_scheme("user"))
    installations = (top, sysconfig.get_path("data"), user)  # the first one of pip install --target
    roots = [top, *(Path(folder, "share", "lce") for folder in installations)]
    return next((root / path for root in roots if (root / path).exists()), path)
