"""Measures models by the bias benchmarks and perplexity, all on the same sentences with the same masks."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from lce.config import Kind, Precision, Settings
from lce.data import wheels
from lce.data.collating import TokenBatch
from lce.data.encoding import encode
from lce.data.module import UNBOUNDED, evaluation_collator, evaluation_loader, read_examples, read_text
from lce.data.prepare import prepare_examples
from lce.data.specification import load_specification
from lce.foundations.errors import LceError
from lce.foundations.files import read_json, write_json
from lce.foundations.paths import EXAMPLES, SCORES
from lce.foundations.seeds import derive
from lce.metrics.items import ItemMetric
from lce.metrics.perplexity import Perplexity, token_losses
from lce.metrics.scoring import PROCESSOR_TOKENS, evaluating
from lce.metrics.sentence_scoring import start_token
from lce.metrics.suite import BiasSuite, Scores, all_scores
from lce.storage.torch_bridge import fingerprint
from lce.training.trainer_options import numerics, on_one_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {"bf16-true": "bfloat16", "16-true": "float16", "64-true": "float64"}
"""Type of the weights by the precision, where it is not float32."""

LIBRARIES = ("lce", "torch", "transformers", "tokenizers", "lightning", "numpy", "scipy")
"""Libraries whose versions are recorded with the scores."""


class Evaluator:
    """Scores models that share one tokenizer, on one device, in the precision of ``trainer_options``.

    A model that is measured is left on the device where it was; a "true" precision converts its weights for good.

    Raises:
        LceError: a benchmark, its settings, or the text cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        trainer_options: Mapping[str, Any],
        tokenizer: PreTrainedTokenizerBase,
        kind: Kind = "masked",
    ) -> None:
        self.settings, self.kind, self.tokenizer = settings, kind, tokenizer
        self.sentences, self.max_length = _sentences(settings, tokenizer)
        specification = load_specification(settings.data.specification)
        self.suite = BiasSuite(
            settings.evaluation,
            tokenizer,
            settings.data.downloads,
            self.sentences,
            self.max_length,
            kind,
            specification,
        )
        self.texts: dict[str, tuple[list[str], DataLoader[TokenBatch]]] = {}
        """By the name of a perplexity, its sentences, and batches of them."""
        for name, sentences in (("perplexity", self.sentences), ("plain_perplexity", _plain_sentences(settings))):
            if sentences and name in settings.evaluation.metrics:
                self.texts[name] = sentences, self._batches(sentences, name)
        options = on_one_device(trainer_options)
        self.precision: Precision = options.get("precision") or "32-true"
        self.fabric = Fabric(
            accelerator=options.get("accelerator", "auto"), devices=options["devices"], precision=self.precision
        )
        self.fabric.launch()
        self.kept_scores = Path(settings.experiment) / SCORES
        self.measure = [
            version("lce"),
            asdict(settings.evaluation),
            self.suite.data,
            self._masked,
            numerics(trainer_options),
        ]

    def metrics(self, model: PreTrainedModel, leave_out: Collection[str] = ()) -> list[ItemMetric]:
        """All metrics of ``model``, with all their items, except those named in ``leave_out``.

        Raises:
            LceError: a score is not a finite number, or no token of the text is masked.
        """
        with self._placed(model):
            with self.fabric.autocast():
                metrics = self.suite.measure(model, leave_out)
            metrics += [self._perplexity(model, name) for name in self.texts if name not in leave_out]
        if not all(metric.is_finite() for metric in metrics):
            raise LceError(f"model {model.name_or_path}: gives scores that are not finite numbers")
        return metrics

    def scores(self, model: PreTrainedModel, leave_out: Collection[str] = ()) -> Scores:
        """The scores of `metrics`, as they go into JSON."""
        return all_scores(self.metrics(model, leave_out))

    def unedited(self, model: PreTrainedModel) -> Scores:
        """As `scores`, but those of the same weights by the same measure are kept in the run and read again."""
        key = derive(fingerprint(dict(model.named_parameters())), str(self.measure))
        path = self.kept_scores / f"{key:016x}.json"
        if not path.exists():
            write_json(path, self.scores(model))
        return dict(read_json(path))

    @contextmanager
    def _placed(self, model: nn.Module) -> Iterator[None]:
        """Puts ``model`` on the device of the options, in their precision, and after the block back where it was."""
        device = next(model.parameters()).device
        self.fabric.setup_module(model)
        try:
            yield
        finally:
            model.to(device)

    @property
    def _masked(self) -> float | None:
        """The average probability of masking a token of the text; None where none is masked."""
        return self.settings.train.mask_probability if self.kind == "masked" else None

    def _batches(self, sentences: list[str], name: str) -> DataLoader[TokenBatch]:
        texts = encode(sentences, sentences, self.tokenizer, None, self.max_length)
        size = max(1, (self.settings.evaluation.tokens_per_batch or PROCESSOR_TOKENS) // int(texts.sizes.max()))
        self.suite.data["sentences" if name == "perplexity" else name] = fingerprint(
            {"ids": texts.ids, "offsets": texts.offsets}
        )
        probability = self.settings.train.mask_probability
        return evaluation_loader(evaluation_collator(self.kind, texts, self.tokenizer, probability), size)

    def _perplexity(self, model: PreTrainedModel, name: str) -> Perplexity:
        sentences, batches = self.texts[name]
        metric = Perplexity(name, {"sentence": sentences})
        with evaluating(model):
            for batch in tqdm(batches, name.replace("_", " "), leave=False, unit="batch", delay=2, disable=None):
                moved = self.fabric.to_device(batch)
                with self.fabric.autocast():  # not while batches are made: it changes the type of random numbers
                    metric.add(moved, token_losses(model, moved))
        if not metric.items()["tokens"].any():
            asked = "masked" if self.kind == "masked" else "predicted"
            raise LceError(f"{name}: no token of these few sentences is {asked}; measure it on more of them")
        return metric

    def provenance(self) -> dict[str, Any]:
        """Everything that a score has to come with before it can be compared with another one."""
        device = self.fabric.device
        return {
            **asdict(self.settings.evaluation),
            "kind": self.kind,
            **({"start_token": self.tokenizer.decode([start_token(self.tokenizer)])} if self.kind == "causal" else {}),
            "mask_probability": self._masked,
            "sentences": len(self.sentences),
            "max_length": self.max_length,
            "tokens_per_batch": self.suite.budget.tokens,
            "data_sha256": self.suite.data,
            "special_cases": {name: items for name, items in self.suite.special_cases.items() if items},
            "device": torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"{device} ({platform.machine()})",
            "dtype": DTYPES.get(str(self.precision), "float32"),
            "precision": str(self.precision),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        }


def _sentences(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> tuple[list[str], int]:
    """The sentences that perplexities are measured on, and the tokens at which they are cut; none if none is asked."""
    about = settings.evaluation
    longest = min(tokenizer.model_max_length, UNBOUNDED)
    if not {"perplexity", "pseudo_perplexity"} & set(about.metrics):
        return [], longest
    if about.text:
        return read_text(about.text, tokenizer)[: about.limit], longest
    prepare_examples(settings.data)
    texts, _ = read_examples(Path(settings.data.folder) / EXAMPLES, None, True)
    return texts[: about.limit], min(settings.train.max_length, longest)


PLAIN_SENTENCES = 400
"""How many plain sentences are measured, about."""


def _plain_sentences(settings: Settings) -> list[str]:
    """Distinct sentences from all over STS-B's development set, if they are asked for."""
    if "plain_perplexity" not in settings.evaluation.metrics:
        return []
    with (wheels.fetch(wheels.STSB, settings.data.downloads) / "sts-dev.csv").open(encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    sentences = list(dict.fromkeys(text for row in rows for text in row[5:7]))
    return sentences[:: len(sentences) // PLAIN_SENTENCES][: settings.evaluation.limit]
