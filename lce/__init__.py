"""Find where a model keeps a bias, and edit just that: what the scripts in examples/ use, from Python.

    pair = lce.open_pair("target-model", "reference-model")      # the weights of both, read when they are needed
    selection = lce.select(pair, lce.EditSettings(share=0.01))   # where: the weights that differ most
    edit = lce.WeightEdit(selection, *pair, alpha=2.0)           # what: twice the step from target to reference

    model, tokenizer = lce.load_language_model("target-model")
    with edit.applied(model):                                    # tried, and undone bit for bit
        ...
    edit.patch("patch.safetensors")                              # kept

    lce.from_pretrained("target-model", patch="patch.safetensors")

Features of a sparse autoencoder, instead of weights:

    edits = lce.SiteEdits(lce.FeatureSettings(sae="autoencoder"), model, tokenizer, "causal")
    edit = edits.features(scale=0)                               # the selected features, taken out

Nothing is imported before it is asked for.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "BiasSuite": "metrics.suite",
    "EditSettings": "config",
    "EvaluationSettings": "config",
    "FeatureSettings": "localize.feature_settings",
    "Patch": "patch",
    "SiteEdits": "evaluation.site_edits",
    "WeightEdit": "edit.weight_edit",
    "differences": "metrics.items",
    "from_pretrained": "patch.loading",
    "kind_named": "models.kinds",
    "load_language_model": "models.loading",
    "open_pair": "localize.pair",
    "select": "localize.pair",
}
"""Where each name of the public face is defined."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lce' has no attribute {name!r}")
    return getattr(import_module(f"lce.{_HOMES[name]}"), name)
