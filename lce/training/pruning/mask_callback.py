"""Keeps pruned weights at zero while a subnetwork trains."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from lce.storage.masks import Mask
from lce.training.module import LanguageModel, checked


class MaskCallback(Callback):
    """Trains f(m ⊙ θ): the weights that ``mask`` prunes are zero before the first step and after every one."""

    def __init__(self, mask: Mask) -> None:
        self.mask = mask

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.mask_sparsity = self.mask.sparsity
        # Multiplying by 0 or 1 in one byte takes a twelfth of the time of filling by a mask.
        self.factors = {name: kept.to(pl_module.device, torch.int8) for name, kept in self.mask.kept.items()}
        self.clear_(checked(pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.clear_(checked(pl_module))
        pl_module.log("train/sparsity", self.mask_sparsity, batch_size=1)

    @torch.no_grad()
    def clear_(self, module: LanguageModel) -> None:
        """Set the pruned weights to zero, in place."""
        with module.whole_parameters() as parameters:
            for name, factor in self.factors.items():
                parameters[name].mul_(factor)
