"""Masked language models: loading, the weights that may be pruned, and the Lightning module that trains one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import lightning as L
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.functional import cross_entropy

from lce.data.masking import MaskedBatch
from lce.foundations.errors import LceError
from lce.models.fast_linear import OneDnnLinear
from lce.models.loading import open_masked_lm, refusing
from lce.metrics.perplexity import Perplexity
from lce.foundations.seeds import derive

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_masked_lm(
    name: str | Path, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A masked language model in float32 and its tokenizer, from a folder or by its name on the hub.

    The tokenizer's ``model_max_length`` is at most what the model takes.

    Args:
        trust_remote_code: run code that comes with the model, if it needs any.

    Raises:
        LceError: nothing of this name can be loaded, it is no masked language model, its tokenizer has no
            mask token or is not a fast one, or its configuration, weights and vocabulary do not fit each other.
    """
    model, tokenizer = open_masked_lm(name, trust_remote_code)
    with refusing(f"model {name}"), torch.no_grad():  # what only computing shows
        tokenizer.model_max_length = int(min(tokenizer.model_max_length, longest_input(model)))
        masked_logits(model, *_two_sentences(model))
    return model, tokenizer


def longest_input(model: PreTrainedModel) -> int:
    """The number of tokens that ``model`` takes, special ones included.

    RoBERTa and its kin count positions from behind the padding's, so theirs is less than their configuration says.
    """
    positions = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    reserved = positions.padding_idx if isinstance(positions, nn.Embedding) else None
    longest: int = getattr(model.config, "max_position_embeddings", 0) or 10**9
    return longest if reserved is None else longest - reserved - 1


def layer_stacks(model: PreTrainedModel) -> dict[str, nn.ModuleList]:
    """The stacks of the encoder's layers, by name."""
    modules = model.base_model.named_modules()
    return {f"{model.base_model_prefix}.{name}": stack for name, stack in modules if isinstance(stack, nn.ModuleList)}


def compile_layers(model: PreTrainedModel) -> None:
    """Compile the encoder's layers in place, for sentences of any length.

    All but the last one, in which `masked_logits` changes from batch to batch which positions go on.
    """
    _GATHERED_AFTER[model] = _latest_mixing_of_positions(model)  # tried now, not on compiled layers
    for stack in layer_stacks(model).values():
        for layer in stack[:-1]:
            layer.compile(dynamic=True)


def prunable_parameters(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weight matrices of the encoder's layers by name, in order: what is pruned, compared and edited.

    These are the linear modules inside a stack of layers. Biases, normalisation, embeddings, pooler and
    language-modelling head stay out (Lutz et al. 2024, appendix E).
    """
    inside = tuple(f"{name}." for name in layer_stacks(model))
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(inside)
    }


def masked_logits(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, positions: Tensor) -> Tensor:
    """Logits at the flat ``positions`` (M,) of a (B, L) batch only: shape (M, vocabulary).

    What follows the last attention works on each position alone: the last layer's feed-forward block, and the head,
    which costs as much as the layers of a small encoder. Keeping only the asked positions from there on gives the
    same logits and saves the rest, in training too.
    """
    if model not in _GATHERED_AFTER:
        _GATHERED_AFTER[model] = _latest_mixing_of_positions(model)
    return _logits_at(model, _GATHERED_AFTER[model], input_ids, attention_mask, positions)


_GATHERED_AFTER: WeakKeyDictionary[PreTrainedModel, str | None] = WeakKeyDictionary()
"""Per model, the module behind which only the asked positions go on; None if only the logits can be gathered."""


def _logits_at(
    model: PreTrainedModel, module: str | None, input_ids: Tensor, attention_mask: Tensor, positions: Tensor
) -> Tensor:
    """As `masked_logits`, keeping the asked positions behind ``module``, or (None) those of the logits."""

    def gather(module: nn.Module, arguments: Any, output: Any) -> Any:
        states = output if isinstance(output, Tensor) else output[0]
        kept = states.flatten(0, 1)[positions].unsqueeze(0)
        if isinstance(output, Tensor):
            return kept
        if isinstance(output, tuple):
            return kept, *output[1:]
        output["last_hidden_state"] = kept
        return output

    handle = model.get_submodule(module).register_forward_hook(gather) if module else None
    try:
        with OneDnnLinear():
            logits: Tensor = model(input_ids=input_ids, attention_mask=attention_mask).logits
    finally:
        if handle:
            handle.remove()
    return logits.squeeze(0) if handle else logits.flatten(0, 1)[positions]


def _latest_mixing_of_positions(model: PreTrainedModel) -> str | None:
    """The latest module after which each position goes its own way: last attention, encoder, or (None) neither.

    Architectures differ in what they do with the output of a module, so each choice is tried on a small batch, and
    taken if the logits are those of the whole model.
    """
    layers = f"{model.base_model_prefix}.encoder.layer"
    modules = dict(model.named_modules())
    last = next((f"{layers}.{i}.attention" for i in range(999, -1, -1) if f"{layers}.{i}" in modules), None)
    input_ids, attention_mask, positions = _two_sentences(model)
    tolerance = 1e-4 if model.dtype == torch.float32 else 3e-2
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            whole = _logits_at(model, None, input_ids, attention_mask, positions)
            for module in (last, model.base_model_prefix):
                if module not in modules:
                    continue
                try:
                    found = _logits_at(model, module, input_ids, attention_mask, positions)
                except (RuntimeError, IndexError, TypeError, ValueError, AttributeError, KeyError):
                    continue
                if found.shape == whole.shape and (found - whole).abs().max() <= tolerance * whole.abs().max():
                    return module
    finally:
        model.train(training)
    return None


def _two_sentences(model: PreTrainedModel) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments of `masked_logits` for a try: input ids and attention mask (2, 6), and three positions."""
    input_ids = torch.arange(12, device=model.device).view(2, 6) % model.config.vocab_size
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 4:] = 0
    return input_ids, attention_mask, torch.tensor([1, 4, 8], device=model.device)


class MaskedLanguageModel(L.LightningModule):
    """Trains a masked language model with AdamW and linear warm-up and decay; validates by perplexity.

    Args:
        model: the Hugging Face model that is trained in place.
        learning_rate: the highest learning rate.
        steps: optimiser steps, over which the learning rate falls to zero.
        seed: seed of the dropout, which depends on it and on the step alone.
        warmup_steps: steps over which the learning rate rises to its highest.
        weight_decay: decoupled weight decay, on matrices only.
        freeze: regular expressions; parameters whose name matches one anywhere are not trained.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        learning_rate: float = 1e-5,
        steps: int = 1,
        seed: int = 0,
        warmup_steps: int = 0,
        weight_decay: float = 0.0,
        freeze: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.steps, self.warmup_steps, self.seed = steps, warmup_steps, seed
        self.perplexity = Perplexity("perplexity")
        self.matrices = {name for name, parameter in self.named_parameters() if parameter.ndim > 1}
        for pattern in freeze or []:
            matching = [parameter for name, parameter in model.named_parameters() if re.search(pattern, name)]
            if not matching:
                raise LceError(f"train.freeze: {pattern!r} matches no parameter of the model")
            for parameter in matching:
                parameter.requires_grad_(False)

    @contextmanager
    def whole_parameters(self) -> Iterator[dict[str, nn.Parameter]]:
        """The model's parameters by name; where FSDP has divided them over processes, put together for the while."""
        wrapper = self._trainer.strategy.model if self._trainer else None
        whole: AbstractContextManager[None] = nullcontext()
        if isinstance(wrapper, FullyShardedDataParallel):
            whole = FullyShardedDataParallel.summon_full_params(wrapper)
        with whole:
            yield dict(self.model.named_parameters())

    def forward(self, batch: MaskedBatch) -> Tensor:
        """Cross-entropy at each of the M masked positions, shape (M,)."""
        logits = masked_logits(self.model, batch.input_ids, batch.attention_mask, batch.positions)
        return cross_entropy(logits.float(), batch.labels, reduction="none")

    def on_train_batch_start(self, batch: MaskedBatch, batch_idx: int) -> None:
        part = batch_idx % self.trainer.accumulate_grad_batches
        torch.manual_seed(derive(self.seed, "dropout", self.global_step, part, self.global_rank))

    def training_step(self, batch: MaskedBatch, batch_idx: int) -> Tensor:
        loss: Tensor = self(batch).sum() / batch.mean_count
        self.log("train/loss", loss, prog_bar=True, batch_size=max(batch.labels.numel(), 1))
        return loss

    def validation_step(self, batch: MaskedBatch, batch_idx: int) -> None:
        losses = self(batch)
        row = batch.positions // batch.input_ids.shape[1]
        per_sentence = losses.new_zeros(len(batch.items)).index_add(0, row, losses)
        tokens = row.bincount(minlength=len(batch.items))
        self.perplexity.update(item=batch.items, loss=per_sentence, tokens=tokens)
        is_training = self.trainer.state.fn == "fit"
        self.log("validation/perplexity", self.perplexity, prog_bar=True, logger=is_training, on_epoch=True)

    def configure_optimizers(self) -> Any:
        trained = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        groups = [
            {"params": [p for name, p in trained.items() if name in self.matrices], "weight_decay": self.weight_decay},
            {"params": [p for name, p in trained.items() if name not in self.matrices], "weight_decay": 0.0},
        ]
        # The fused kernel is several times faster, but in mixed precision Lightning cannot clip gradients before it.
        trainer = self._trainer
        clipped = trainer is not None and trainer.gradient_clip_val and str(trainer.precision).endswith("mixed")
        fused = self.device.type in ("cpu", "cuda") and not clipped
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, eps=1e-8, fused=fused)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, linear_schedule(self.warmup_steps, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def linear_schedule(warmup_steps: int, steps: int) -> Callable[[int], float]:
    """Factor on the learning rate at a step: up to one in ``warmup_steps``, down to zero at ``steps``."""
    return lambda step: min((step + 1) / (warmup_steps + 1), max(0.0, (steps - step) / max(1, steps - warmup_steps)))
