"""The Lightning module that trains a sparse autoencoder.

Three kinds: TopK (Gao et al. 2024), BatchTopK (Bussmann et al. 2024), and ReLU with an L1 penalty.

States are centred and scaled to length √width on average first; what is saved has both folded into its weights, and
gives the same activations on states as they are.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lce.data.collating import TokenBatch
from lce.foundations.seeds import generator
from lce.models.autoencoder import SparseAutoencoder
from lce.models.fast_linear import OneDnnLinear
from lce.models.sites import SINK
from lce.training.autoencoder.settings import AutoencoderSettings
from lce.training.autoencoder.validation import Splicing

AUXILIARY = 1 / 32
"""Weight of the dead features' loss (Gao et al. 2024, appendix A.2)."""
MOST = 4
"""Of one state, batchtopk keeps at most so many times k activations."""
THRESHOLD_RATE = 0.01
"""How fast batchtopk's threshold follows the smallest activation kept; faster if there are less than 1,000 steps."""
PENALTY_WARMUP = 0.05
"""Share of the steps over which the L1 penalty rises."""


class AutoencoderModule(L.LightningModule):
    """An autoencoder in training.

    Its decoder's rows have length 1 after every step, and its encoder starts as the decoder transposed.

    Args:
        settings: sizes, kind, and how it is trained.
        centre: mean of the states, (width,).
        scale: what makes centred states √width long on average.
    """

    def __init__(self, settings: AutoencoderSettings, centre: Tensor, scale: float) -> None:
        super().__init__()
        width, train = len(centre), settings.train
        size = max(1, round(settings.expansion * width))
        self.settings, self.architecture, self.k = train, settings.architecture, min(settings.k, size)
        rows = torch.randn(size, width, generator=generator(settings.seed, "autoencoder"))
        self.decoder = nn.Parameter(F.normalize(rows, dim=1))
        self.encoder = nn.Parameter(self.decoder.detach().clone())
        self.encoder_bias, self.decoder_bias = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(width))
        self.register_buffer("centre", centre)
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("threshold", torch.tensor(0.0))  # of batchtopk: the smallest activation kept, on average
        self.register_buffer("idle", torch.zeros(size, dtype=torch.long))  # steps since a feature was active
        self.centre: Tensor
        self.scale: Tensor
        self.threshold: Tensor
        self.idle: Tensor
        self.splicing: Splicing | None = None
        """What it is validated by."""

    def training_step(self, states: Tensor, _: int) -> Tensor:
        x = (states - self.centre) * self.scale
        x = x[x.norm(dim=1) < SINK * sqrt(x.shape[1])]
        with OneDnnLinear():
            before = F.linear(x - self.decoder_bias, self.encoder, self.encoder_bias).float()
        compute = self._standard if self.architecture == "standard" else self._topk
        loss, error, active = compute(x, before)
        self.idle += 1
        self.idle[active] = 0
        with torch.no_grad():
            unexplained = error.square().sum() / (x - x.mean(0)).square().sum()
        shown = {"train/loss": loss.detach(), "train/unexplained_variance": unexplained}
        self.log_dict(shown, prog_bar=True, batch_size=len(states))
        self.log_dict({"train/l0": self.l0, "train/dead": self._dead.float().mean()}, batch_size=len(states))
        return loss

    @property
    def _dead(self) -> Tensor:
        return self.idle >= self.settings.dead_after

    def _topk(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, reconstruction error (batch, width), and the active features."""
        values, places = self._kept(before)
        is_kept = values > 0
        starts = F.pad(is_kept.sum(1).cumsum(0)[:-1], (1, 0))
        active, weights = places[is_kept], values[is_kept]
        self.l0 = len(active) / len(x)
        written = F.embedding_bag(active, self.decoder, starts, per_sample_weights=weights, mode="sum")
        error = x - self.decoder_bias - written
        loss = error.square().mean()
        dead = self._dead.nonzero().flatten()
        if len(dead):
            number = min(len(dead), max(1, x.shape[1] // 2))
            chosen, which = before[:, dead].topk(number, sorted=False)
            again = F.embedding_bag(dead[which], self.decoder, per_sample_weights=chosen.relu(), mode="sum")
            left = error.detach()
            loss = loss + AUXILIARY * (again - left).square().mean() / left.square().mean().clamp(min=1e-12)
        return loss, error.detach(), active

    def _kept(self, before: Tensor) -> tuple[Tensor, Tensor]:
        """Activations (batch, n) and their features, of which those that are not kept are zero."""
        if self.architecture == "topk":
            values, places = before.topk(self.k, sorted=False)
            return values.relu(), places
        values, places = before.topk(min(MOST * self.k, before.shape[1]), sorted=False)
        values = values.relu()
        least = values.detach().flatten().topk(self.k * len(before), sorted=False).values.min()
        rate = min(1.0, max(THRESHOLD_RATE, 10 / self.settings.steps)) if self.global_step else 1.0
        self.threshold += rate * (least - self.threshold)
        return values * (values >= least), places

    def _standard(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = before.relu()
        self.l0 = float((z > 0).sum() / len(x))
        with OneDnnLinear():
            error = x - self.decoder_bias - F.linear(z, self.decoder.t())
        rise = min(1.0, (self.global_step + 1) / max(1, PENALTY_WARMUP * self.settings.steps))
        penalty = rise * self.settings.l1 * z.sum(1).mean() / x.shape[1]
        return error.square().mean() + penalty, error.detach(), (z > 0).any(0)

    def on_validation_start(self) -> None:
        assert self.splicing is not None, "set before the fit"
        self.splicing.reset()
        self.current = self.autoencoder()

    def validation_step(self, batch: TokenBatch, _: int) -> None:
        assert self.splicing is not None, "set before the fit"
        self.splicing.add(batch, self.current)

    def on_validation_epoch_end(self) -> None:
        assert self.splicing is not None, "set before the fit"
        self.log_dict({f"validation/{name}": value for name, value in self.splicing.scores().items()})

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Take off what would only make the decoder's rows longer or shorter."""
        gradient = self.decoder.grad
        if gradient is not None:
            rows = self.decoder.detach()
            gradient -= (gradient * rows).sum(1, keepdim=True) * rows

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Have the decoder's rows at length 1 again before anything else is done, such as writing a checkpoint."""
        super().optimizer_step(*arguments, **named)
        with torch.no_grad():
            self.decoder.copy_(F.normalize(self.decoder, dim=1))

    def configure_optimizers(self) -> Any:
        steps = self.settings.steps
        optimizer = torch.optim.Adam(self.parameters(), lr=self.settings.learning_rate, fused=True)
        warmup, decay = max(1, steps // 100), max(1, steps // 5)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / warmup, (steps - step) / decay)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def autoencoder(self, **about: Any) -> SparseAutoencoder:
        """What was learned so far, for states as they are; ``about`` goes into it."""
        scale, is_batchtopk = self.scale.detach(), self.architecture == "batchtopk"
        return SparseAutoencoder(
            encoder=self.encoder.detach().t().contiguous() * scale,
            decoder=self.decoder.detach() / scale,
            encoder_bias=self.encoder_bias.detach().clone(),
            decoder_bias=self.centre + self.decoder_bias.detach() / scale,
            architecture="jumprelu" if is_batchtopk else self.architecture,
            k=self.k if self.architecture == "topk" else None,
            threshold=self.threshold.expand(len(self.encoder)).clone() if is_batchtopk else None,
            **about,
        )


def centre_and_scale(states: Tensor) -> tuple[Tensor, float]:
    """The mean of ``states`` (n, width), and what makes them √width long on average once it is taken off."""
    lengths = states.norm(dim=1)
    usual = states[lengths < SINK * lengths.median()]
    centre = usual.mean(0)
    return centre, sqrt(states.shape[1]) / float((usual - centre).norm(dim=1).mean())
