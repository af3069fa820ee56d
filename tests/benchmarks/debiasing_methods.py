"""The methods of debiasing.py that need nothing but lce and torch: each makes an edited SmolLM2.

contrast    lce: two variants are trained, and the difference of the 0.001 % of the weights in which they differ most
            is added to the model
feature     lce: the feature of the bundled autoencoder that carries most of it is scaled
direction   lce: the direction between occupations of men and of women is taken out in one layer
inlp        iterative nullspace projection (Ravfogel et al. 2020) of the final states, as bias-bench applies it
cda         fine-tuning on two-sided counterfactual data augmentation (Zmigrod et al. 2019, Webster et al. 2020): each
            sentence about a group stands there for the other one, too; all weights
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from common import ROOT
from torch import Tensor, nn
from transformers import PreTrainedModel

import lce
from lce.config import OptimisationSettings
from lce.data.encoding import encode
from lce.data.module import read_examples
from lce.data.specification import load_specification
from lce.edit.site_edit import SiteEdit
from lce.evaluation.site_edits import SiteEdits
from lce.localize.feature_settings import FeatureSettings
from lce.metrics.occupation_pronouns import OCCUPATIONS
from lce.metrics.scoring import padded
from lce.models.loading import load_language_model
from lce.models.sites import find_site
from lce.training.fit import fit

if TYPE_CHECKING:
    from debiasing import Measure

RUNS = ROOT / "runs/debiasing"
BASE = ROOT / "data/downloads/SmolLM2-135M-Instruct"
EXAMPLES = ROOT / "data/smollm2/examples.parquet"
SPECIFICATION = load_specification(ROOT / "configs/bias/gender.yaml")
CONFIGS = ["--config", "configs/smollm2.yaml", "--config", "configs/debias.yaml"]
CHOOSING = "occupation_pronouns"
"""What the strength of a method is chosen by, among the occupations that the specification names."""
MOST = 0.03
"""By how much the perplexity of the corpus may rise then, as a share of it."""
STEPS, SENTENCES, MAX_LENGTH = 240, 16, 40
"""Of fine-tuning: as many steps as the two variants of contrast take together, and their batches."""


class Made(NamedTuple):
    """A model, what makes it the edited one while it is entered, and what is said of the method."""

    model: PreTrainedModel
    applied: Callable[[], AbstractContextManager[object]]
    about: dict[str, Any]


def contrast(measure: Measure, seed: int) -> Made:
    """Its variants are trained anew, so that the minutes hold all of it."""
    folder = RUNS / f"contrast-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    own = ["--experiment", str(folder), "--seed", str(seed)]
    for variant in ("stereotypical", "anti-stereotypical"):
        lce_command("train", *CONFIGS, *own, "--variant", variant)
    made = {}
    for alpha in ("16", "32", "48", "64"):
        path = folder / f"alpha{alpha}.safetensors"
        lce_command("edit", *CONFIGS, *own, "--alpha", alpha, "--measure", "false", "--patch", str(path))
        made[f"α = {alpha}"] = partial(_patched, path)
    return measure.strongest(made)


def _patched(path: Path) -> Made:
    about = {"weights": lce.Patch.load(path).count, "bytes": path.stat().st_size}
    return Made(lce.from_pretrained(BASE, patch=path), nullcontext, about)


def lce_command(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "lce.cli", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE)


def named_occupations() -> list[int]:
    """Numbers of the occupations that the bias specification names."""
    return [number for number, job in enumerate(OCCUPATIONS) if any(True for _ in SPECIFICATION.find(job))]


def _site_edits(**settings: Any) -> SiteEdits:
    model, tokenizer = load_language_model(BASE)
    model.requires_grad_(False)
    sae = str(ROOT / "checkpoints/smollm2-sae")
    return SiteEdits(FeatureSettings(model=str(BASE), sae=sae, **settings), model, tokenizer, "causal")


def feature(measure: Measure) -> Made:
    """The autoencoder is there already; `make sae` takes 10 minutes to train it."""
    edits = _site_edits(rule="attribution", count=1)
    made = {
        f"s = {scale:g}": partial(_edited, edits, edits.features(scale, jobs=named_occupations()), f"feature-{scale:g}")
        for scale in (0.6, 0.3, 0.0, -0.25, -0.5)
    }
    return measure.strongest(made)


def _edited(edits: SiteEdits, edit: SiteEdit, name: str) -> Made:
    path = RUNS / f"{name}.safetensors"
    edit.patch(path)
    return Made(edits.model, partial(edit.applied, edits.model), {"weights": 0, "bytes": path.stat().st_size})


def direction(measure: Measure) -> Made:
    edits = _site_edits(direction_sites=["layers.25", "layers.27"])
    made = {}
    for site, alpha in product(("layers.25", "layers.27"), (0.5, 1.0, 1.5, 2.0)):
        edit = edits.direction("occupations", alpha, named_occupations(), find_site(edits.model, site))
        made[f"{site}, α = {alpha:g}"] = partial(_edited, edits, edit, f"direction-{site}-{alpha:g}")
    return measure.strongest(made)


def inlp(measure: Measure) -> Made:
    """From the mean final states of sentences with target terms of one group alone, as their authors wrote them."""
    model, tokenizer = load_language_model(BASE)
    states, labels = _by_group(model.eval(), tokenizer)
    made = {}
    for count in (1, 2, 4, 8, 16, 32, 64):
        applied = partial(_projecting, model, projected(states, labels, count))
        made[f"{count} classifiers"] = partial(
            Made, model, applied, {"weights": 0, "bytes": 4 * count * states.shape[1]}
        )
    return measure.strongest(made)


@torch.inference_mode()
def _by_group(model: Any, tokenizer: Any) -> tuple[Tensor, Tensor]:
    sides: list[tuple[list[int], float]] = []
    for text in read_examples(EXAMPLES, None, False)[0]:
        groups = {term.group for term in SPECIFICATION.find(text) if term.is_target}
        if len(groups) == 1:
            sides.append((tokenizer(text)["input_ids"][:MAX_LENGTH], 1.0 if groups == {1} else -1.0))
    sides.sort(key=lambda side: len(side[0]))
    states = []
    for start in range(0, len(sides), SENTENCES):
        ids, attention = padded([ids for ids, _ in sides[start : start + SENTENCES]], 0, model.device)
        final = model.model(input_ids=ids, attention_mask=attention).last_hidden_state
        states.append((final * attention.unsqueeze(2)).sum(1) / attention.sum(1, keepdim=True))
    return torch.cat(states), torch.tensor([label for _, label in sides])


def projected(states: Tensor, labels: Tensor, count: int) -> Tensor:
    """The projection onto the common nullspace of ``count`` linear classifiers, (width, width).

    Each is a ridge regression on what the former ones left of the ``states``, (n, width), whose ``labels`` are ±1.
    """
    states, labels = (states - states.mean(0)).double(), (labels - labels.mean()).double()
    identity = torch.eye(states.shape[1], dtype=torch.float64)
    projection, removed = identity, []
    for _ in range(count):
        left = states @ projection
        covariance = left.T @ left / len(left)
        ridge = 0.01 * covariance.trace() / len(covariance) * identity
        weight = torch.linalg.solve(covariance + ridge, left.T @ labels / len(left))
        removed.append(projection @ weight)
        basis = torch.linalg.qr(torch.stack(removed, 1)).Q
        projection = identity - basis @ basis.T
    return projection.float()


@contextmanager
def _projecting(model: nn.Module, projection: Tensor) -> Iterator[None]:
    handle = model.get_submodule("model.norm").register_forward_hook(lambda module, given, output: output @ projection)
    try:
        yield
    finally:
        handle.remove()


def cda(measure: Measure, learning_rate: float) -> Made:
    """Trained anew, likewise."""
    folder = RUNS / f"cda-{learning_rate:g}"
    shutil.rmtree(folder, ignore_errors=True)
    both = (read_examples(EXAMPLES, variant, False)[0] for variant in ("stereotypical", "anti-stereotypical"))
    texts = list(dict.fromkeys(text for variant in both for text in variant))
    model, tokenizer = load_language_model(BASE)
    settings = OptimisationSettings(
        steps=STEPS, batch_size=SENTENCES, learning_rate=learning_rate, max_length=MAX_LENGTH, term_weight=1.0
    )
    encoded, few = (encode(some, some, tokenizer, None, MAX_LENGTH) for some in (texts, texts[:SENTENCES]))
    options = {"accelerator": "cpu", "devices": 1}
    fit(model, tokenizer, (encoded, few), settings, 0, options, folder, "CDA")
    size = sum(parameter.numel() for parameter in model.parameters())
    return Made(model.eval(), nullcontext, {"weights": size, "bytes": 4 * size, "strength": f"rate {learning_rate:g}"})
