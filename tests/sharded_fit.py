"""A short masked training under FSDP, for two processes without a GPU: python -m torch.distributed.run … FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from conftest import make_tokenizer, own_sentences, tiny_bert
from lightning.pytorch.strategies import FSDPStrategy
from safetensors.torch import save_file
from torch.distributed.fsdp import FullyShardedDataParallel

from lce.callbacks import MaskCallback
from lce.data.encoding import encode
from lce.masks import Mask, magnitude_prune
from lce.models import prunable_parameters
from lce.training import OptimisationSettings, fit


class OnProcessors(FSDPStrategy):
    """Lightning gives FSDP to GPUs only; torch does it on processors as well."""

    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu")

    def _setup_model(self, model: torch.nn.Module) -> FullyShardedDataParallel:
        return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))


def train(folder: Path, is_sharded: bool) -> float:
    """Train a tiny pruned model, write its weights to ``folder``, return its perplexity."""
    tokenizer, texts = make_tokenizer(), own_sentences()
    encoded = encode(texts, texts, tokenizer, None, max_length=32)
    model = tiny_bert(tokenizer)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    mask = magnitude_prune(prunable_parameters(model), Mask.dense(prunable_parameters(model)), 0.3)
    # No checkpoint on the way: without a GPU, gathering an optimiser's shares crashes in torch.
    settings = OptimisationSettings(steps=10, batch_size=16, learning_rate=5e-3, weight_decay=0.1, max_length=32)
    options = {"accelerator": "cpu", "devices": 1}
    if is_sharded:
        options |= {"devices": 2, "strategy": OnProcessors(process_group_backend="gloo")}
    trainer, perplexity = fit(
        model, tokenizer, (encoded, encoded), settings, 7, options, folder, "", [MaskCallback(mask)]
    )
    if trainer.is_global_zero:
        save_file({name: p.detach() for name, p in model.named_parameters()}, folder / "weights.safetensors")
    return perplexity


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), is_sharded=True)
