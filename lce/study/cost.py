"""What a study will take: from the cells that have run, or, before any has, from the arithmetic it needs.

A model of n weights takes 2 n floating-point operations a token forwards and 6 n in training (Kaplan et al. 2020,
section 2.1); how many this machine does in a second is measured on a matrix product.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch

from lce.evaluation.audit_inputs import open_audit, open_direction_audit
from lce.foundations.files import read_json
from lce.models.clip import load_clip
from lce.models.layers import prunable_parameters
from lce.models.loading import load_language_model
from lce.study.cell_files import CellFiles
from lce.study.cells import Cell
from lce.study.picture_inputs import audit_settings, direction_settings
from lce.study.settings import StudySettings

TOKENS_OF_A_SENTENCE = 30
TOKENS_OF_AN_EVALUATION = 60_000
PAIRS_OF_A_TASK = 6000
EFFICIENCY = 0.5
"""Share of a large matrix product's speed that training and evaluation reach."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one cell of a kind, and where the number comes from."""

    seconds: float
    is_measured: bool


def costs(study: StudySettings, files: CellFiles, cells: Sequence[Cell]) -> dict[str, Cost]:
    """The cost of each kind among ``cells``, on one worker."""
    seen: dict[str, list[float]] = {}
    for cell in cells:
        found = seen.setdefault(cell.kind, [])
        if (path := files.path(cell)).exists() and not (result := read_json(path)).get("existed"):
            found.append(result["seconds"])
    guessed = {} if all(seen.values()) else _guessed(study)
    return {kind: Cost(median(found), True) if found else Cost(guessed[kind], False) for kind, found in seen.items()}


def _guessed(study: StudySettings) -> dict[str, float]:
    found: dict[str, float] = {}
    if study.heads.is_asked:
        found |= _guessed_of_heads(study)
    if study.directions.is_asked:
        found |= _guessed_of_directions(study)
    if study.variants:
        found |= _guessed_of_text(study, study.base)
    if study.features.is_asked:
        found["features"] = _guessed_of_text(study, study.features.model or study.base)["features"]
    return found


def _guessed_of_text(study: StudySettings, model: str) -> dict[str, float]:
    base, _ = load_language_model(model, study.trust_remote_code)
    weights = sum(p.numel() for p in prunable_parameters(base).values())
    per_token = 2 * weights / (_speed(study) * EFFICIENCY)
    trained = 3 * study.train.steps * study.train.batch_size * TOKENS_OF_A_SENTENCE
    tuned = 3 * study.downstream.epochs * PAIRS_OF_A_TASK * 2 * TOKENS_OF_A_SENTENCE
    tokens = {
        "train": trained + TOKENS_OF_AN_EVALUATION,
        "measure": TOKENS_OF_AN_EVALUATION,
        "compare": 0,
        "overlap": 0,
        "edit": TOKENS_OF_AN_EVALUATION,
        "finetune": tuned,
        "features": 2 * TOKENS_OF_AN_EVALUATION,
    }
    return {kind: number * per_token for kind, number in tokens.items()}


def _guessed_of_heads(study: StudySettings) -> dict[str, float]:
    """The image encoder reads every view of every picture; an edit computes a quarter of it anew, by and large."""
    clip = load_clip(study.heads.model or study.base, "cpu", study.trust_remote_code)
    weights = sum(parameter.numel() for parameter in clip.tower.layers.parameters())
    about = clip.model.config.vision_config
    patches = (about.image_size // about.patch_size) ** 2
    views = len(open_audit(audit_settings(study, next(iter(study.heads.attributes))), clip).batches.views)
    one = 2 * weights * patches * views / (_speed(study) * EFFICIENCY)
    return {"heads": 1.5 * one, "random-heads": (1 + study.heads.random_sets / 4) * one}


def _guessed_of_directions(study: StudySettings) -> dict[str, float]:
    """Pictures by which the layer is chosen and those that are measured are read once; an edit reads the latter anew,
    and a random direction the ambiguous ones of them, from the chosen layer on.
    """
    audit = open_direction_audit(direction_settings(study))
    weights = sum(parameter.numel() for layer in audit.model.layers for parameter in layer.parameters())
    inputs = next(iter(audit.prompted(audit.shown.openers[:1], audit.measure.prompt)))
    one = 2 * weights * inputs["input_ids"].shape[1] / (_speed(study) * EFFICIENCY)
    shown, unsure = len(audit.shown.pictures), int(audit.ambiguous.sum())
    return {
        "directions": one * (len(audit.chosen_by.pictures) + 2 * shown) / 2,
        "random-directions": one * (shown + study.directions.random_directions * unsure / 2),
    }


def _speed(study: StudySettings) -> float:
    """Floating-point operations a second of one task's share of this machine."""
    device = torch.device("cuda" if study.gpus_per_task and torch.cuda.is_available() else "cpu")
    threads, size = torch.get_num_threads(), 1024
    torch.set_num_threads(max(1, int(study.cpus_per_task)))
    matrix = torch.ones(size, size, device=device)
    best = float("inf")
    try:
        for _ in range(5):
            started = time.perf_counter()
            (matrix @ matrix)[0, 0].item()
            best = min(best, time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return 2 * size**3 / best
