"""How well an autoencoder does on held-out text: what it leaves unexplained, and what the model loses by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lce.data.collating import TokenBatch
from lce.metrics.perplexity import token_losses
from lce.models.autoencoder import SparseAutoencoder
from lce.models.places import Place
from lce.models.sites import Site, changed_at, states_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Splicing:
    """A model with and without reconstructed states at one site, on batches of texts.

    The first token of each text keeps its state, and so do attention sinks elsewhere, as in training. The loss is that
    of the next tokens of a causal model, of the masked ones of a masked model.

    Args:
        longest: how long a state may be that is looked at.
    """

    def __init__(self, model: PreTrainedModel, site: Site, longest: float) -> None:
        self.model, self.site, self.longest = model, site, longest
        self.reset()

    def reset(self) -> None:
        self.error = self.active = self.states = self.tokens = 0.0
        self.sum: Tensor | float = 0.0
        self.squares = 0.0
        self.plain = self.spliced = 0.0

    def add(self, batch: TokenBatch, autoencoder: SparseAutoencoder) -> None:
        """Measure one more batch."""
        seen: list[Tensor] = []

        def look(states: Tensor, _: Place) -> Tensor:
            seen.append(states)
            return states

        def splice(states: Tensor, place: Place) -> Tensor:
            again = autoencoder.reconstruct(states).to(states.dtype)
            is_left = place.first_of(states) | (states.norm(dim=-1) >= self.longest)
            return torch.where(is_left.unsqueeze(-1), states, again)

        for name, change in (("plain", look), ("spliced", splice)):
            with changed_at(self.model, self.site, change):
                losses = token_losses(self.model, batch)
            setattr(self, name, getattr(self, name) + float(losses.sum()))
        self.tokens += len(losses)
        states, ids, attention = seen[0], batch.input_ids, batch.attention_mask
        if states.shape[:-1] != ids.shape:  # only the positions that are asked for go on there
            states = states_at(self.model, self.site, ids, attention)
        kept = states[attention.bool() & (attention.cumsum(1) > 1) & (states.norm(dim=-1) < self.longest)].float()
        z = autoencoder.encode(kept)
        again = z @ autoencoder.decoder + autoencoder.decoder_bias
        self.error += float((kept - again).square().sum())
        self.active += float((z > 0).sum())
        self.states += len(kept)
        self.sum = self.sum + kept.double().sum(0)
        self.squares += float(kept.double().square().sum())

    def scores(self) -> dict[str, float]:
        """Share of the states' variance that is unexplained, active features of a state, mean losses [nats]."""
        mean = torch.as_tensor(self.sum) / self.states
        variance = self.squares - self.states * float(mean.square().sum())
        return {
            "unexplained_variance": self.error / variance,
            "l0": self.active / self.states,
            "loss": self.plain / self.tokens,
            "loss_spliced": self.spliced / self.tokens,
        }
