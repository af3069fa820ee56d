"""What is wrong with settings in themselves, before anything is fetched or loaded: one function a kind of settings.

Each raises LceError for the first value that cannot be right, whatever the model and the text. The command line asks
right after parsing; the functions that do the work ask again, for those who call them from Python.
"""

import os
import re
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from lce import config
from lce.foundations.errors import LceError

SHORTEST = 3
"""Tokens of the shortest sentence: one between the two that mark its ends."""


def expect(is_right: bool, name: str, wanted: str, got: Any) -> None:
    """Raises LceError unless ``is_right``."""
    if not is_right:
        raise LceError(f"{name}: expected {wanted}, got {got}")


def check_positive(value: float | None, name: str, what: str = "a positive number") -> None:
    """Raises LceError unless ``value`` is 1 or more, or not given."""
    expect(value is None or value >= 1, name, what, value)


def check_not_negative(value: float | None, name: str) -> None:
    """Raises LceError unless ``value`` is finite and 0 or more, or not given."""
    expect(value is None or 0 <= value < inf, name, "0 or more", value)


def check_probability(value: float, name: str) -> None:
    expect(0 < value < 1, name, "a probability between 0 and 1", value)


def check_share(value: float, name: str) -> None:
    expect(0 <= value <= 1, name, "a share from 0 to 1", value)


def check_size(share: float, count: int | None = None, where: str = "") -> None:
    """Raises LceError unless there is a ``share`` in (0, 1], and a positive ``count`` if there is one."""
    expect(0 < share <= 1, f"{where}share", "a share of the weights in (0, 1]", share)
    check_positive(count, f"{where}count", "a positive number of weights")


def check_length(tokens: int, name: str) -> None:
    expect(tokens >= SHORTEST, name, f"at least {SHORTEST} tokens", tokens)


def check_rising(levels: Sequence[float], name: str = "sparsities") -> None:
    """Raises LceError unless the ``levels`` are shares that can be pruned to one after the other, all beyond 0."""
    is_rising = list(levels) == sorted(set(levels)) and all(0 < level < 1 for level in levels)
    expect(is_rising, name, "rising shares between 0 and 1", list(levels))


def check_expressions(patterns: Sequence[str] | None, name: str) -> None:
    """Raises LceError unless all ``patterns`` are regular expressions."""
    for pattern in patterns or []:
        try:
            re.compile(pattern)
        except re.error as error:
            raise LceError(f"{name}: {pattern!r} is no regular expression ({error})") from error


def check_corpus(settings: config.CorpusSettings) -> None:
    check_positive(settings.limit, "data.corpus.limit", "a positive number of documents")
    if settings.source == "hub" and settings.streaming and settings.limit is None:
        raise LceError("data.corpus.streaming: needs data.corpus.limit, the number of documents to read")
    if settings.source == "files" and not settings.files:
        raise LceError("data.corpus.files: no file is named; list your .txt, .csv, .jsonl or .parquet files")


def check_data(settings: config.DataSettings) -> None:
    check_corpus(settings.corpus)
    check_positive(settings.min_words, "data.min_words")
    least = settings.min_words
    expect(settings.max_words >= least, "data.max_words", f"at least data.min_words ({least})", settings.max_words)
    check_not_negative(settings.neutral_ratio, "data.neutral_ratio")
    share = settings.evaluation_fraction
    expect(0 < share < 1, "data.evaluation_fraction", "a share between 0 and 1", share)
    check_positive(settings.processes, "data.processes")


def check_training(settings: config.OptimisationSettings) -> None:
    for name in ("steps", "batch_size", "checkpoint_every", "validate_every"):
        check_positive(getattr(settings, name), f"train.{name}")
    for name in ("learning_rate", "weight_decay", "workers"):
        check_not_negative(getattr(settings, name), f"train.{name}")
    is_within = 0 <= settings.warmup_steps <= settings.steps
    expect(is_within, "train.warmup_steps", f"0 to train.steps ({settings.steps})", settings.warmup_steps)
    check_expressions(settings.freeze, "train.freeze")
    for name in ("term_probability", "mask_probability"):
        check_probability(getattr(settings, name), f"train.{name}")
    check_length(settings.max_length, "train.max_length")


def check_trainer(options: Mapping[str, Any], batch_size: int | None = None) -> None:
    """Raises LceError for Trainer ``options`` that are wrong on any machine.

    Args:
        batch_size: sentences of a step that is to be divided, if there is one.
    """
    for name in ("num_nodes", "accumulate_grad_batches", "log_every_n_steps"):
        check_positive(options.get(name), f"trainer.{name}")
    check_not_negative(options.get("gradient_clip_val"), "trainer.gradient_clip_val")
    devices = options.get("devices", 1)
    is_number = str(devices).lstrip("-").isdigit()
    expect(not is_number or int(devices) >= 1 or int(devices) == -1, "trainer.devices", "a positive number", devices)
    is_one = devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1)
    if not is_one and not {"LOCAL_RANK", "SLURM_PROCID"} & set(os.environ):
        raise LceError(
            f"trainer.devices: {devices} devices train one model in several processes, which a launcher starts: "
            "torchrun --nproc-per-node N -m lce.cli train … --trainer.devices N"
        )
    shares = int(os.environ.get("WORLD_SIZE", 1)) * (options.get("accumulate_grad_batches") or 1)
    if batch_size is not None and batch_size < shares:
        raise LceError(f"train.batch_size: {batch_size} sentences cannot be divided into {shares} shares")


def check_one_device(options: Mapping[str, Any], what: str) -> None:
    """Raises LceError where several devices, or several processes of a launcher, are to train ``what``."""
    devices = options.get("devices", 1)
    is_one = devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1)
    expect(is_one, "trainer.devices", f"one device: {what} is trained by one", devices)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    expect(processes == 1, "WORLD_SIZE", f"one process: {what} is trained by one", processes)


def check_float32_weights(options: Mapping[str, Any]) -> None:
    """Raises LceError where the Trainer's ``options`` would convert the weights themselves."""
    precision = options.get("precision")
    is_known = precision in (None, 32, "32", "32-true", "bf16-mixed", "16-mixed")
    expect(is_known, "trainer.precision", "32-true, bf16-mixed or 16-mixed", precision)


def check_evaluation(settings: config.EvaluationSettings) -> None:
    check_positive(settings.limit, "evaluation.limit", "a positive number of items")
    check_positive(settings.tokens_per_batch, "evaluation.tokens_per_batch")


def check_settings(settings: config.Settings) -> None:
    check_data(settings.data)
    check_training(settings.train)
    check_evaluation(settings.evaluation)
    check_localization(settings)
    contrast = settings.contrast
    is_pair = contrast is None or (len(contrast) == 2 and contrast[0] != contrast[1])
    expect(is_pair, "contrast", "two different models, FROM and TO", contrast)
    check_not_negative(settings.seed, "seed")
    check_not_negative(settings.random_baselines, "random_baselines")
    check_rising(settings.sparsities)


def check_localization(settings: config.EditSettings) -> None:
    expect(0 <= settings.sparsity < 1, "sparsity", "a share from 0 up to, not including, 1", settings.sparsity)
    check_size(settings.share, settings.count)
    check_expressions(settings.tensors, "tensors")


def check_pretraining(settings: config.PretrainSettings) -> None:
    check_data(settings.data)
    check_training(settings.train)
    check_not_negative(settings.seed, "seed")
    check_positive(settings.layers, "layers")
    check_not_negative(settings.minimum_count, "minimum_count")
    expect(0 <= settings.dropout < 1, "dropout", "a share from 0 up to, not including, 1", settings.dropout)
