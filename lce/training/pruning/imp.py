"""Iterative magnitude pruning (IMP): the subnetworks of one variant, at rising sparsity.

    1. Fine-tune the pretrained network θ0 for i steps.
    2. Prune the smallest weights, over all prunable ones together.
    3. Rewind the survivors to θ0.
    4. Repeat on f(m ⊙ θ0) until the wanted sparsity is reached.

Every level is fine-tuned for the full i steps and saved before the next begins, and a level that exists is
not made again: a killed run resumes where it was. (Lutz et al. 2024, appendix E; Chen et al. 2020.)
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lce.checks import check_rising
from lce.config import Settings
from lce.data.module import encoded_examples
from lce.foundations import paths
from lce.foundations.atomic_files import new_folder
from lce.foundations.errors import LceError
from lce.foundations.files import claim, made_with, save_config, write_json
from lce.foundations.locks import held
from lce.foundations.overwriting import check_replaceable
from lce.foundations.ranks import rank
from lce.models.kinds import kind_named
from lce.models.layers import prunable_parameters
from lce.models.loading import load_language_model, without_bounds
from lce.storage.hub import ModelIdentity, identity
from lce.storage.in_memory import load_subnetwork, pruned_values, read_record
from lce.storage.masks import Mask, magnitude_prune
from lce.storage.torch_bridge import write_file
from lce.training.fit import fit
from lce.training.pruning.mask_callback import MaskCallback
from lce.training.trainer_options import identity_of, numerics

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

WINNING_TICKET = 1.05
"""A subnetwork wins if its held-out perplexity is at most this factor of the dense model's."""


def iterative_magnitude_pruning(settings: Settings, trainer_options: dict[str, Any]) -> Path:
    """Make the dense model and all subnetworks of ``settings.variant``; return the summary file.

    Raises:
        LceError: the sparsities make no schedule, the folder holds subnetworks made with other settings, another
            training is at work there, or the base model is replaced meanwhile.
    """
    levels = schedule(settings)
    folder = paths.variant_folder(settings.experiment, settings.seed, settings.variant)
    if settings.output:
        check_replaceable(settings.output, "summary of a training")
    base = identity(settings.base)
    with _alone_in(folder):
        if rank() == 0:
            shared = _shared(settings, trainer_options, base)
            claim(folder, shared, ("sparsity-*", "rounds/*/checkpoints/*"), "train", ("base_fingerprint",))
            save_config(folder / paths.CONFIG, asdict(settings) | {"trainer": trainer_options}, "train")
        previous = None
        for i, sparsity in enumerate(levels):
            level = paths.level_folder(folder, sparsity)
            if not level.exists():
                train_level(level, previous, levels[: i + 1], settings, trainer_options, base)
            elif (made := read_record(level).get("schedule")) != levels[: i + 1]:
                raise LceError(
                    f"{level}: was reached by the sparsities {made}, not {levels[: i + 1]}; choose another run"
                )
            previous = level
        summary = Path(settings.output) if settings.output else folder / paths.SUMMARY
        write_json(summary, {"levels": [read_record(paths.level_folder(folder, sparsity)) for sparsity in levels]})
    return summary


def _alone_in(folder: Path) -> AbstractContextManager[None]:
    """A lock on a variant's folder, held by the first of the processes that train together."""
    if rank():
        return nullcontext()
    return held(folder / paths.TRAIN_LOCK, f"{folder}: another training is at work there")


def schedule(settings: Settings) -> list[float]:
    """The sparsities of all rounds, from 0: the configured ones, or those below the wanted one and itself."""
    wanted = settings.sparsity
    chosen = settings.sparsities
    if wanted and wanted not in chosen:
        chosen = [*(sparsity for sparsity in chosen if sparsity < wanted), wanted]
        if left_out := [sparsity for sparsity in settings.sparsities if sparsity not in chosen]:
            log.info("sparsities %s are left out: the schedule ends at the sparsity %s", left_out, wanted)
    check_rising(chosen)
    return [0.0, *chosen]


def train_level(
    level: Path,
    previous: Path | None,
    levels: list[float],
    settings: Settings,
    trainer_options: dict[str, Any],
    base: ModelIdentity,
) -> None:
    """One round: prune what ``previous`` learned to the last of ``levels``, rewind to θ0, fine-tune, save."""
    sparsity = levels[-1]
    model, tokenizer = load_language_model(settings.base, settings.trust_remote_code)
    if identity(settings.base).fingerprint != base.fingerprint:
        raise LceError(f"{settings.base}: was replaced while subnetworks of it were made; {level} needs it as it was")
    parameters = prunable_parameters(model)
    if previous is None:
        mask, before_pruning = Mask.dense(parameters), {}
    else:
        trained = load_subnetwork(previous, parameters)
        mask = magnitude_prune(trained.weights, trained.mask, sparsity)
        before_pruning = {name: trained.values_before_pruning(trained.whole(name)) for name in parameters}
    train, held_out = (
        encoded_examples(settings.data, settings.variant, side, tokenizer, settings.train.max_length)
        for side in (False, True)
    )
    rounds = level.parent / "rounds" / level.name
    title = f"{settings.variant}, {sparsity:.0%} sparse"
    trainer, perplexity = fit(
        model,
        tokenizer,
        (train, held_out),
        settings.train,
        settings.seed,
        trainer_options,
        rounds,
        title,
        [MaskCallback(mask)],
    )
    parameters = prunable_parameters(model)  # those before the training may have been taken apart (FSDP)
    if trainer.is_global_zero:
        record = _record(settings, levels, mask, perplexity, level.parent, base)
        log.info("%s: perplexity %.2f, winning ticket: %s", title, perplexity, record["winning_ticket"])
        mask.apply_(parameters)
        save_level(level, model, tokenizer, mask, before_pruning or parameters, record)
        shutil.rmtree(rounds / "checkpoints", ignore_errors=True)
    trainer.strategy.barrier()


def save_level(
    level: Path,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    mask: Mask,
    before_pruning: Mapping[str, Tensor],
    record: dict[str, Any],
) -> None:
    """Write a subnetwork: a Hugging Face folder, and beside the weights what `load_subnetwork` reads."""
    with new_folder(level) as temporary:
        model.save_pretrained(temporary)
        without_bounds(tokenizer).save_pretrained(temporary)
        extra = temporary / paths.SUBNETWORK
        extra.mkdir()
        mask.save(extra / paths.MASK)
        write_file(extra / paths.PRUNED_VALUES, pruned_values(mask, before_pruning), {"kind": "pruned values"})
        write_json(extra / paths.RECORD, record)


def _record(
    settings: Settings, levels: list[float], mask: Mask, perplexity: float, folder: Path, base: ModelIdentity
) -> dict[str, Any]:
    unpruned = paths.level_folder(folder, 0.0)
    dense = read_record(unpruned, ["perplexity"])["perplexity"] if len(levels) > 1 else perplexity
    return {
        "variant": settings.variant,
        "seed": settings.seed,
        "base": settings.base,
        "base_fingerprint": base.fingerprint,
        "base_commit": base.commit,
        "sparsity": levels[-1],
        "schedule": levels,
        "pruned": mask.pruned,
        "prunable": mask.size,
        "perplexity": perplexity,
        "dense_perplexity": dense,
        "winning_ticket": perplexity <= WINNING_TICKET * dense,
    }


def _shared(settings: Settings, trainer_options: dict[str, Any], base: ModelIdentity) -> dict[str, Any]:
    """What a variant's subnetworks depend on, beside the sparsities before them."""
    return {
        "base": os.fspath(settings.base),
        "base_fingerprint": base.fingerprint,
        "seed": settings.seed,
        "data": made_with(settings.data.folder),
        "train": identity_of(settings.train, kind_named(settings.base, settings.trust_remote_code)),
        "trainer": numerics(trainer_options),
    }
