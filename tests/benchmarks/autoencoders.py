"""Encoding and training of sparse autoencoders against sae-lens: the same states, sizes and machine, in one run.

Encoding: each kind of autoencoder, written by lce and read by both. Training: TopK with 4,608 features of 576 values
and k = 32, 1,024 states a step; lce by its Lightning module under a Trainer, sae-lens by its own trainer, neither
logging. The states are random combinations of a few of many directions; the ratio is sae-lens's time as a multiple of
lce's.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from common import PEER_OWN_RATIO, in_turns, machine, report, spent, timed
from lightning import Trainer
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from lce.foundations.logs import quieten
from lce.models.autoencoder import SparseAutoencoder
from lce.models.autoencoder_files import load_autoencoder, save_autoencoder
from lce.training.autoencoder.module import AutoencoderModule, centre_and_scale
from lce.training.autoencoder.settings import AutoencoderOptimisation, AutoencoderSettings

WIDTH, FEATURES, ACTIVE, BATCH, STEPS = 576, 4608, 32, 1024, 40


def states(count: int) -> Tensor:
    """(count, WIDTH): sums of a few of many directions, with noise."""
    torch.manual_seed(0)
    directions = normalize(torch.randn(2000, WIDTH), dim=1)
    chosen = torch.randint(2000, (count, 20))
    return torch.einsum("nk,nkw->nw", torch.rand(count, 20), directions[chosen]) + 0.01 * torch.randn(count, WIDTH)


def encoding(x: Tensor) -> Iterator[list[str]]:
    """A row a kind: times of both, their ratio, by how much they differ at most, and where rounding decides."""
    from sae_lens import SAE

    decoder = normalize(torch.randn(FEATURES, WIDTH), dim=1)
    biases = 0.1 * torch.randn(FEATURES), 0.1 * torch.randn(WIDTH)
    kinds = {"standard": {}, "topk": {"k": ACTIVE}, "jumprelu": {"threshold": torch.rand(FEATURES)}}
    for name, more in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            made = SparseAutoencoder(decoder.T.contiguous(), decoder, *biases, architecture=name, site="x", **more)
            save_autoencoder(made, Path(folder, "sae"))
            ours, theirs = load_autoencoder(Path(folder, "sae")), SAE.load_from_disk(Path(folder, "sae"))
        with torch.inference_mode():
            first, second = ours.encode(x), theirs.encode(x)
            is_same = (first > 0) == (second > 0)
            apart = float((first - second)[is_same].abs().max())
            undecided = f", {int((~is_same).sum())} at the threshold" if not bool(is_same.all()) else ""
            turns = in_turns(*(spent(partial(one.encode, x)) for one in (ours, theirs)))
        yield [f"encode, {name}", *turns.cells(), f"{apart:.1e}{undecided}"]


def by_lce(x: Tensor, steps: int) -> None:
    train = AutoencoderOptimisation(steps=steps, batch_size=BATCH, learning_rate=3e-4, dead_after=1000)
    settings = AutoencoderSettings(architecture="topk", k=ACTIVE, expansion=FEATURES / WIDTH, train=train)
    module = AutoencoderModule(settings, *centre_and_scale(x))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", max_steps=steps, logger=False, **quiet)
    trainer.fit(module, DataLoader(x.split(BATCH), batch_size=None))


def by_sae_lens(x: Tensor, steps: int) -> None:
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=WIDTH, d_sae=FEATURES, k=ACTIVE))
    config = SAETrainerConfig(steps * BATCH, BATCH, lr_end=3e-5, logger=LoggingConfig(log_to_wandb=False))
    parts = x.split(BATCH)
    batches = (parts[i % len(parts)] for i in range(steps + 10))
    SAETrainer(config, sae, batches).fit()


def main() -> None:
    warnings.filterwarnings("ignore")
    quieten()
    x = states(8 * BATCH)
    rows = list(encoding(x))

    def step(train: Callable[[Tensor, int], None]) -> float:
        shorter, longer = (timed(partial(train, x, steps))[0] for steps in (STEPS, 2 * STEPS))
        return (longer - shorter) / STEPS

    rows.append(["a step of training, topk", *in_turns(partial(step, by_lce), partial(step, by_sae_lens)).cells(), ""])
    report(machine(torch.device("cpu")), ["", "sae-lens", *PEER_OWN_RATIO[1:], "largest difference"], rows)


if __name__ == "__main__":
    main()
