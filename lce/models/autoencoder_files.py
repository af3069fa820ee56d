"""Sparse autoencoders in files: SAELens's format, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lce.foundations.atomic_files import new_folder
from lce.foundations.errors import LceError
from lce.foundations.files import read_json, write_json
from lce.models.autoencoder import ARCHITECTURES, NORMALISATIONS, SparseAutoencoder
from lce.storage.hub import resolve_part
from lce.storage.safetensors_file import read_header
from lce.storage.torch_bridge import read_tensor

SETTINGS, WEIGHTS = "cfg.json", "sae_weights.safetensors"
FORMAT_VERSION = "6.0.0"
"""The version of SAELens whose format is written."""
IN_WEIGHTS = {"expected_average_only_in": "none", "True": "none"}
"""Normalisations that are in the weights already: SAELens's code does nothing about them when it encodes. It once said
true for the first."""
RELEASES: dict[str, dict[str, str]] = {
    "JoshEngels/Mistral-7B-Residual-Stream-SAEs": {"normalize_activations": "constant_norm_rescale"},
}
"""What SAELens's directory of releases says beside the files on the hub: of mistral-7b-res-wg."""


def save_autoencoder(autoencoder: SparseAutoencoder, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write ``autoencoder`` to a new ``folder``, its tensors in ``dtype``.

    Raises:
        LceError: the folder holds something, or cannot be written.
    """
    is_topk = autoencoder.architecture == "topk"
    settings: dict[str, Any] = {
        "architecture": autoencoder.architecture,
        "d_in": autoencoder.width,
        "d_sae": autoencoder.size,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": autoencoder.subtracts_bias,
        "normalize_activations": autoencoder.normalisation,
        "reshape_activations": "none",
        **({"k": autoencoder.k, "rescale_acts_by_decoder_norm": False} if is_topk else {}),
        "metadata": {
            **(autoencoder.metadata or {}), "hook_name": autoencoder.site, "sae_lens_version": FORMAT_VERSION
        },
    }  # fmt: skip
    with new_folder(folder) as temporary:
        tensors = {name: tensor.to(dtype).contiguous() for name, tensor in autoencoder.tensors().items()}
        save_file(tensors, temporary / WEIGHTS)
        write_json(temporary / SETTINGS, settings)


def load_autoencoder(name: str | Path, normalisation: str | None = None) -> SparseAutoencoder:
    """The autoencoder in a folder, or in a folder of a repository on the hub: ``owner/repository/folder``.

    Args:
        normalisation: instead of the one that its files name.

    Raises:
        LceError: there is none, it is of a kind that lce does not know, tensors are missing, do not fit each other or
            are not finite.
    """
    title = f"autoencoder {name}"
    folder = resolve_part(name, (SETTINGS, WEIGHTS))
    settings = read_json(folder / SETTINGS)
    if not isinstance(settings, dict):
        raise LceError(f"{folder / SETTINGS}: expected a mapping, got {type(settings).__name__}")
    repository = "/".join(Path(name).parts[:2])
    about = _described(title, {**settings, **RELEASES.get(repository, {})})
    if normalisation:
        about["normalisation"] = normalisation
    tensors = _read_tensors(folder / WEIGHTS, title, settings)
    threshold = tensors.pop("threshold", None)
    if (about["architecture"] == "jumprelu") != (threshold is not None):
        raise LceError(f"{title}: a jumprelu autoencoder has a threshold, and no other; its {WEIGHTS} disagrees")
    encoder, decoder, *biases = (tensors[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec"))
    found = SparseAutoencoder(encoder, decoder, biases[0], biases[1], threshold=threshold, title=title, **about)
    if found.architecture == "topk" and not (type(found.k) is int and 1 <= found.k <= found.size):
        raise LceError(f"{folder / SETTINGS}: k: expected 1 to {found.size:,} features, got {found.k!r}")
    return found


def _described(title: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a cfg.json says, in the words of `SparseAutoencoder`; older files have other names for it."""
    said = settings.get("metadata")
    metadata: dict[str, Any] = said if isinstance(said, dict) else {}
    options = settings.get("activation_fn_kwargs")
    k = (options if isinstance(options, dict) else {}).get("k", settings.get("k"))
    architecture = settings.get("architecture", "standard")
    if (settings.get("activation_fn") or settings.get("activation_fn_str")) == "topk":
        architecture = "topk"
    if architecture not in ARCHITECTURES:
        raise LceError(f"{title}: is of the kind {architecture!r}; lce reads {', '.join(ARCHITECTURES)}, no other")
    hook = metadata.get("hook_name") or settings.get("hook_name") or settings.get("hook_point") or ""
    normalisation = str(settings.get("normalize_activations") or "none")
    normalisation = IN_WEIGHTS.get(normalisation, normalisation)
    if normalisation not in NORMALISATIONS:
        known = ", ".join(NORMALISATIONS)
        raise LceError(f"{title}: normalises states by {normalisation!r}; lce knows {known}")
    if settings.get("reshape_activations", "none") != "none" or "hook_z" in str(hook):
        raise LceError(
            f"{title}: works on the outputs of single attention heads (hook_z), which are no states of a site"
        )
    if settings.get("rescale_acts_by_decoder_norm"):
        raise LceError(
            f"{title}: has rescale_acts_by_decoder_norm set; fold the norms into it with SAELens and save it"
        )
    return {
        "architecture": architecture,
        "k": k,
        "subtracts_bias": bool(settings.get("apply_b_dec_to_input", True)),
        "normalisation": normalisation,
        "site": str(hook),
        "metadata": metadata,
    }


def _read_tensors(path: Path, title: str, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of an autoencoder in float32, by SAELens's names, checked."""
    _, entries = read_header(path)
    if missing := [name for name in ("W_enc", "W_dec", "b_enc", "b_dec") if name not in entries]:
        raise LceError(f"{title}: {path.name} lacks {', '.join(missing)}")
    if unknown := set(entries) - {"W_enc", "W_dec", "b_enc", "b_dec", "threshold", "scaling_factor"}:
        raise LceError(f"{title}: {path.name} has tensors that lce does not know: {', '.join(sorted(unknown))}")
    width, size = settings.get("d_in"), settings.get("d_sae")
    wanted: dict[str, tuple[Any, ...]] = {
        "W_enc": (width, size), "W_dec": (size, width), "b_enc": (size,), "b_dec": (width,), "threshold": (size,),
    }  # fmt: skip
    tensors = {}
    for name, entry in entries.items():
        if name == "scaling_factor":
            if bool((read_tensor(entry) != 1).any()):
                raise LceError(f"{title}: has a scaling_factor beside its weights; fold it into them with SAELens")
            continue
        if entry.shape != wanted[name]:
            raise LceError(f"{title}: {name} has the shape {entry.shape}, by {SETTINGS} {wanted[name]}")
        tensors[name] = read_tensor(entry).view(entry.shape).float()
        if not bool(torch.isfinite(tensors[name]).all()):
            raise LceError(f"{title}: {name} holds infinite values or NaN")
    return tensors
