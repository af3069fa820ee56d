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
from tqdm import tqdm

from lce.config import Precision, Settings
from lce.data.encoding import encode
from lce.data.module import UNBOUNDED, evaluation_loader, read_examples, read_text
from lce.data.prepare import prepare_examples
from lce.foundations.errors import LceError
from lce.foundations.files import read_json, write_json
from lce.foundations.paths import EXAMPLES, SCORES
from lce.foundations.seeds import derive
from lce.metrics.items import ItemMetric
from lce.metrics.perplexity import Perplexity, masked_losses
from lce.metrics.scoring import PROCESSOR_TOKENS, evaluating
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
        self, settings: Settings, trainer_options: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.settings = settings
        self.sentences, self.max_length = _sentences(settings, tokenizer)
        self.suite = BiasSuite(settings.evaluation, tokenizer, settings.data.downloads, self.sentences, self.max_length)
        if self.sentences:
            texts = encode(self.sentences, self.sentences, tokenizer, None, self.max_length)
            size = max(1, (settings.evaluation.tokens_per_batch or PROCESSOR_TOKENS) // int(texts.sizes.max()))
            self.batches = evaluation_loader(texts, tokenizer, size, settings.train.mask_probability)
            self.suite.data["sentences"] = fingerprint({"ids": texts.ids, "offsets": texts.offsets})
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
            settings.train.mask_probability,
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
            if "perplexity" in self.settings.evaluation.metrics and "perplexity" not in leave_out:
                metrics.append(self._perplexity(model))
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

    def _perplexity(self, model: PreTrainedModel) -> Perplexity:
        metric = Perplexity("perplexity", {"sentence": self.sentences})
        with evaluating(model):
            for batch in tqdm(self.batches, "perplexity", leave=False, unit="batch", delay=2, disable=None):
                moved = self.fabric.to_device(batch)
                with self.fabric.autocast():  # not while batches are made: it changes the type of random numbers
                    metric.add(moved, masked_losses(model, moved))
        if not metric.items()["tokens"].any():
            raise LceError("perplexity: no token of these few sentences is masked; measure it on more of them")
        return metric

    def provenance(self) -> dict[str, Any]:
        """Everything that a score has to come with before it can be compared with another one."""
        device = self.fabric.device
        return {
            **asdict(self.settings.evaluation),
            "mask_probability": self.settings.train.mask_probability,
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
    if not any("perplexity" in metric for metric in about.metrics):
        return [], longest
    if about.text:
        return read_text(about.text, tokenizer)[: about.limit], longest
    prepare_examples(settings.data)
    texts, _ = read_examples(Path(settings.data.folder) / EXAMPLES, None, True)
    return texts[: about.limit], min(settings.train.max_length, longest)
