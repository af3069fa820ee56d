"""lce's command line with the strategy fsdp_processor: FSDP on processors, which Lightning keeps for GPUs."""

from __future__ import annotations

import sys

import torch
from lightning.pytorch.strategies import FSDPStrategy, StrategyRegistry
from torch.distributed.fsdp import FullyShardedDataParallel

from lce.cli import main


class OnProcessors(FSDPStrategy):
    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu")

    def _setup_model(self, model: torch.nn.Module) -> FullyShardedDataParallel:
        return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))


if __name__ == "__main__":
    StrategyRegistry.register("fsdp_processor", OnProcessors, process_group_backend="gloo")
    sys.exit(main())
