"""The features of an autoencoder as units, and what they do while a model reads about occupations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from lce.config import Kind
from lce.data.encoding import padding_id
from lce.foundations.errors import LceError
from lce.localize.feature_settings import Tokens
from lce.metrics.occupation_pronouns import OCCUPATIONS, PRONOUNS, is_male_dominated, single_tokens
from lce.metrics.scoring import check_length, padded
from lce.metrics.sentence_scoring import start_token
from lce.models.autoencoder import SparseAutoencoder
from lce.models.fast_linear import OneDnnLinear
from lce.models.identity import model_fingerprint
from lce.models.logits import without_cache
from lce.models.places import Place
from lce.models.sites import Site, changed_at, find_site, states_at, width_at
from lce.storage.arrays import combined

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 40
"""Contexts that are read together."""


@dataclass(frozen=True)
class FeatureUnits:
    """The features of an autoencoder at one site of a model.

    Attributes:
        model: the model's fingerprint.
    """

    model: str
    autoencoder: SparseAutoencoder
    site: Site
    kind = "feature"

    @property
    def name(self) -> str:
        """The site as selections name it."""
        return f"{self.site.name.replace(':', '.')}.features"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {self.name: (self.autoencoder.size,)}

    @cached_property
    def fingerprint(self) -> str:
        return combined({"model": self.model, "autoencoder": self.autoencoder.fingerprint, self.site.name: "site"})

    @classmethod
    def of(cls, model: PreTrainedModel, autoencoder: SparseAutoencoder, site: str | None = None) -> FeatureUnits:
        """The units of ``model`` at ``site``, by default where the autoencoder says that it belongs.

        Raises:
            LceError: there is no such site, or the autoencoder is for states of another width.
        """
        wanted = site or str((autoencoder.metadata or {}).get("lce_site") or autoencoder.site)
        if not wanted:
            raise LceError(f"{autoencoder.title}: does not say for which site it is; name it by --site")
        found = find_site(model, wanted)
        if (width := width_at(model, found)) != autoencoder.width:
            name = model.name_or_path or type(model).__name__
            raise LceError(
                f"{autoencoder.title}: takes states of width {autoencoder.width} (d_in), but at {found.name} those of "
                f"{name} are {width} wide; it was made for another model or site"
            )
        return cls(model_fingerprint(model), autoencoder, found)


@dataclass(frozen=True)
class Context:
    """A text about an occupation: the occupation's number, token ids, of which the first never counts, and the place of
    the last that counts: the mask token, where there is one.
    """

    job: int
    ids: tuple[int, ...]
    last: int


def contexts(
    templates: Sequence[str], jobs: Sequence[str], tokenizer: PreTrainedTokenizerBase, kind: Kind
) -> list[Context]:
    """All ``templates`` about all ``jobs``, template by template.

    A template has {job} in it. If it has {pronoun}, too, a causal model reads it up to there, and a masked one has the
    mask token there. A text that the tokenizer begins with no special token gets the start token.

    Raises:
        LceError: a template names no job, or a text is too long.
    """
    found = []
    for template in templates:
        if "{job}" not in template:
            raise LceError(f"contexts: {template!r} has no {{job}} in it")
        for number, job in enumerate(jobs):
            if kind == "causal":
                text = template.partition("{pronoun}")[0].replace("{job}", job).rstrip()
            else:
                text = template.replace("{job}", job).replace("{pronoun}", str(tokenizer.mask_token))
            encoded = tokenizer(text, return_special_tokens_mask=True)
            ids, special = list(encoded["input_ids"]), list(encoded["special_tokens_mask"])
            while kind == "causal" and special[-1] and len(ids) > 1:
                ids, special = ids[:-1], special[:-1]
            if not special[0]:
                ids, special = [start_token(tokenizer), *ids], [1, *special]
            check_length(ids, tokenizer, f"contexts, {text!r}")
            found.append(Context(number, tuple(ids), _last(ids, special, tokenizer, kind)))
    return found


def _last(ids: list[int], special: list[int], tokenizer: PreTrainedTokenizerBase, kind: Kind) -> int:
    """Where a pronoun follows, or stands; without one, the last token of the text."""
    if kind == "masked" and tokenizer.mask_token_id in ids:
        return ids.index(int(tokenizer.mask_token_id))
    return max((place for place, mark in enumerate(special) if not mark), default=len(ids) - 1)


@dataclass(frozen=True)
class Reading:
    """What states, or features, are like in contexts about each of the ``jobs``: (jobs, units), means over contexts."""

    jobs: tuple[str, ...]
    values: Tensor

    @property
    def is_male(self) -> Tensor:
        """Which of the jobs men dominate, (jobs,)."""
        return torch.tensor([is_male_dominated(job) for job in self.jobs])

    def among(self, chosen: Sequence[int]) -> Reading:
        """The same for the jobs of these numbers."""
        return Reading(tuple(self.jobs[i] for i in chosen), self.values[list(chosen)])

    @property
    def difference(self) -> Tensor:
        """Mean over the male-dominated jobs less that over the female-dominated ones, (units,)."""
        return self.values[self.is_male].mean(0) - self.values[~self.is_male].mean(0)


class Reader:
    """Reads texts about occupations with a model whose states at one site are looked at."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: Kind, site: Site,
        jobs: Sequence[str] = tuple(OCCUPATIONS),
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.kind, self.site, self.jobs = model, tokenizer, kind, site, tuple(jobs)
        self.pad_id = padding_id(tokenizer)

    def states(self, templates: Sequence[str], tokens: Tokens) -> Reading:
        """The model's states."""
        return self._read(templates, tokens, lambda states: states)

    def activations(self, autoencoder: SparseAutoencoder, templates: Sequence[str], tokens: Tokens) -> Reading:
        """The activations of an autoencoder's features."""
        return self._read(templates, tokens, autoencoder.to(self.device).encode)

    def _read(self, templates: Sequence[str], tokens: Tokens, look: Any) -> Reading:
        texts = contexts(templates, self.jobs, self.tokenizer, self.kind)
        rows = []
        self.model.eval()
        with torch.inference_mode():
            for start in tqdm(range(0, len(texts), BATCH), "reading", leave=False, delay=2, disable=None):
                batch = texts[start : start + BATCH]
                ids, attention = padded([text.ids for text in batch], self.pad_id, self.device)
                values = look(states_at(self.model, self.site, ids, attention).float())
                counts = (_last_only(attention, batch) if tokens == "last" else _but_first(attention)).unsqueeze(-1)
                rows.append(((values * counts).sum(1) / counts.sum(1)).cpu())
        return self._by_job(torch.cat(rows), len(templates))

    def _by_job(self, rows: Tensor, templates: int) -> Reading:
        return Reading(self.jobs, rows.view(templates, len(self.jobs), -1).mean(0).clone())

    @property
    def device(self) -> torch.device:
        return self.model.device

    def attributions(self, autoencoder: SparseAutoencoder, sentences: Sequence[str]) -> Reading:
        """Of each feature, activation times gradient of log P(he) − log P(she), summed over the tokens of a sentence.

        To first order, it is what the log ratio would lose without the feature [nats].
        """
        autoencoder = autoencoder.to(self.device)
        texts = contexts(sentences, self.jobs, self.tokenizer, self.kind)
        tokens = {side: torch.tensor(single_tokens(words, self.tokenizer)) for side, words in PRONOUNS.items()}
        rows = []
        for start in tqdm(range(0, len(texts), BATCH), "attribution", leave=False, delay=2, disable=None):
            batch = texts[start : start + BATCH]
            ids, attention = padded([text.ids for text in batch], self.pad_id, self.device)
            places = torch.tensor([text.last for text in batch], device=self.device)
            found: list[Tensor] = []

            def keep(states: Tensor, _: Place, found: list[Tensor] = found) -> Tensor:
                found.append(states.detach().requires_grad_())
                return found[0]

            with torch.enable_grad(), changed_at(self.model, self.site, keep), OneDnnLinear():
                every = self.model(input_ids=ids, attention_mask=attention, **without_cache(self.model)).logits
                logits = every[torch.arange(len(batch)), places].float()
                he, she = (logits[:, tokens[side].to(self.device)].logsumexp(1) for side in ("he", "she"))
                (gradient,) = torch.autograd.grad((he - she).sum(), found)
            with torch.inference_mode():
                values = autoencoder.encode(found[0]) * (gradient.float() @ autoencoder.decoder.t())
                rows.append((values * _but_first(attention).unsqueeze(-1)).sum(1).cpu())
        return self._by_job(torch.cat(rows), len(sentences))


def _last_only(attention: Tensor, texts: Sequence[Context]) -> Tensor:
    """1 for the last token that counts of each text and 0 for the others, (batch, positions)."""
    places = torch.tensor([[text.last] for text in texts], device=attention.device)
    return torch.zeros_like(attention).scatter_(1, places, 1)


def _but_first(attention: Tensor) -> Tensor:
    """1 for the tokens of a text but the first, which never counts, and 0 for padding, (batch, positions)."""
    weights = attention.clone()
    weights[:, 0] = 0
    return weights
