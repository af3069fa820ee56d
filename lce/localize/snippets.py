"""The pieces of text on which features are most active: what people look at to see what a feature is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from lce.data.encoding import padding_id
from lce.localize.feature_units import FeatureUnits
from lce.localize.selection import Selection
from lce.metrics.scoring import PROCESSOR_TOKENS, padded, token_batches
from lce.models.sites import SINK, states_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHOWN = 10
"""Snippets of a feature."""
AROUND = 60
"""Characters that are shown on either side of the token."""
LEAST = 1e-3
"""Activation below which a feature counts as not active: what rounding leaves."""
LONGEST = 128
"""Tokens of a text that are looked at."""


def with_snippets(
    selection: Selection,
    units: FeatureUnits,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
) -> Selection:
    """The ``selection`` with the most activating places in ``texts`` among what it says of each feature.

    A snippet has the activation, the token, and the text before and after it. Of one text there is one snippet at most;
    the first token of a text does not count.
    """
    (site,) = selection.shapes
    chosen = selection.indices[site]
    encoded = tokenizer(list(texts), truncation=True, max_length=LONGEST, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    values = torch.zeros(len(texts), len(chosen))
    places = torch.zeros(len(texts), len(chosen), dtype=torch.long)
    features = units.autoencoder.features(chosen).to(model.device)
    pad_id = padding_id(tokenizer)
    long_enough = [i for i, one in enumerate(ids) if len(one) > 1]
    with torch.inference_mode(), tqdm(total=len(texts), desc="snippets", leave=False, delay=2, disable=None) as bar:
        for batch in token_batches([len(ids[i]) for i in long_enough], PROCESSOR_TOKENS):
            rows = [long_enough[i] for i in batch]
            inputs, attention = padded([ids[i] for i in rows], pad_id, model.device)
            states = states_at(model, units.site, inputs, attention)
            active, _ = features.activations(states)
            largest = (active * _usual(states, attention).unsqueeze(-1)).max(1)
            values[rows], places[rows] = largest.values.cpu(), largest.indices.cpu()
            bar.update(len(rows))
    details = []
    for number, known in enumerate(selection.details[site]):
        found = values[:, number].topk(min(SHOWN, len(texts)))
        shown = [
            _snippet(texts[i], offsets[i][int(places[i, number])], value)
            for value, i in zip(found.values.tolist(), found.indices.tolist(), strict=True)
            if value > LEAST
        ]
        details.append({**known, "snippets": shown})
    return replace(selection, details={site: details})


def _usual(states: Tensor, attention: Tensor) -> Tensor:
    """Which states are looked at, (batch, positions): none of a first token, and no attention sink elsewhere."""
    lengths, counted = states.norm(dim=-1), attention.bool()
    counted[:, 0] = False
    return counted & (lengths < SINK * lengths[counted].median())


def _snippet(text: str, span: tuple[int, int], activation: float) -> dict[str, Any]:
    start, end = span
    before, after = text[:start], text[end:]
    return {
        "activation": round(activation, 3),
        "before": before if len(before) <= AROUND else "…" + before[-AROUND:],
        "token": text[start:end],
        "after": after if len(after) <= AROUND else after[:AROUND] + "…",
    }
