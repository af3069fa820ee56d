"""The planted model's edits, and a hook patch of each, for tests of the patches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import planted
import torch
from transformers import PreTrainedModel

from lce.edit.site_edit import DirectionEdit, FeatureEdit, SiteEdit
from lce.localize.directions import occupation_direction
from lce.localize.feature_settings import FeatureRule
from lce.localize.feature_units import FeatureUnits, Reader
from lce.localize.features import select_features
from lce.metrics.occupation_pronouns import SENTENCES

SCORES = {"occupation_pronouns": {"before": 2.0, "after": 0.5}}


@dataclass(frozen=True)
class Made:
    """The planted model, in memory and in the folder ``base``; its edits; the ``folder`` with the patch of each."""

    folder: Path
    base: Path
    model: PreTrainedModel
    edits: dict[str, SiteEdit]

    def file(self, kind: str) -> Path:
        return self.folder / f"{kind}.safetensors"


def made_in(folder: Path) -> Made:
    base, _ = planted.saved(folder)
    model = planted.model().requires_grad_(False)
    made = Made(folder, base, model, edits_of(model))
    for kind, edit in made.edits.items():
        edit.patch(made.file(kind), {"scores": SCORES})
    return made


def edits_of(model: PreTrainedModel) -> dict[str, SiteEdit]:
    """An edit of the two planted features, one of the same features of a topk autoencoder, and one of a direction."""
    units = FeatureUnits.of(model, planted.autoencoder())
    reader = Reader(model, planted.tokenizer(), "causal", units.site)
    activations = reader.activations(units.autoencoder, SENTENCES, "all")
    feature = FeatureEdit(units, select_features(units, activations, FeatureRule()), activations, 0.3)
    topk = replace(units, autoencoder=replace(units.autoencoder, architecture="topk", k=2))
    selection = replace(feature.selection, target=topk.fingerprint, reference=topk.fingerprint)
    direction = occupation_direction(reader, reader.states(SENTENCES, "last"))
    return {
        "feature": feature,
        "topk": replace(feature, units=topk, selection=selection),
        "direction": DirectionEdit(direction, 1.5),
    }


def logits(model: PreTrainedModel, text: str = "The nurse said that the plumber met the secretary") -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(**planted.tokenizer()(text, return_tensors="pt")).logits
    return found


def without_hooks(model: PreTrainedModel) -> bool:
    return not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
