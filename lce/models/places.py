"""Where in texts the states of a forward pass lie: which are those of first tokens, and which those of pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lce.models.logits import KEPT_POSITIONS


class Place:
    """Where in their texts the states of one forward pass lie.

    Attributes:
        is_first: at the first token of a text, (batch, positions), bool, without padding.
        is_prompt: whether the pass begins its texts: what is generated with a cache comes in later passes.
        is_visual: at the tokens of pictures, (batch, positions), bool; None where that cannot be told.
    """

    def __init__(self, image_token: int | None = None) -> None:
        self.is_first: Tensor = torch.zeros(1, 1, dtype=torch.bool)
        self.is_prompt = True
        self.is_visual: Tensor | None = None
        self.image_token = image_token

    def note(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Read the places from what the base model is called with."""
        tokens = named.get("input_ids", arguments[0] if arguments else None)
        self.is_visual = None if tokens is None or self.image_token is None else tokens.eq(self.image_token)
        tokens = named["inputs_embeds"][..., 0] if tokens is None else tokens
        cache, attention, given = (named.get(key) for key in ("past_key_values", "attention_mask", "position_ids"))
        before = cache.get_seq_length() if cache is not None else 0
        length = tokens.shape[1]
        self.is_prompt = before == 0
        if given is not None and given.ndim <= 2:  # not those in time, height and width, as of Qwen2-VL
            places = given.expand(tokens.shape)
        elif attention is not None and attention.ndim == 2:
            places = (attention.long().cumsum(1) - 1)[:, -length:]
        else:
            places = torch.arange(before, before + length, device=tokens.device).expand(tokens.shape)
        self.is_first = places == 0
        if attention is not None and attention.ndim == 2:
            self.is_first &= attention[:, -length:].bool()

    def first_of(self, states: Tensor) -> Tensor:
        """`is_first` for ``states`` (…, width), which may be those of a few positions only: see `logits_at`."""
        if states.shape[:-1] == self.is_first.shape:
            return self.is_first
        return self.is_first.flatten()[KEPT_POSITIONS.get()].unsqueeze(0)


def image_token(model: nn.Module) -> int | None:
    """The token that stands for a piece of a picture, by the configuration of ``model``; None where it reads none."""
    config = getattr(model, "config", None)
    found = [getattr(config, name, None) for name in ("image_token_id", "image_token_index")]
    return next((token for token in found if isinstance(token, int)), None)
