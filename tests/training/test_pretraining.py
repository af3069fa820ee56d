from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import own_sentences
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertModel, BertTokenizer

from lce.cli import main
from lce.config import PretrainSettings
from lce.data import wheels
from lce.foundations.errors import LceError
from lce.training.pretraining import cut_encoder


@pytest.fixture
def encoder(tokenizer: BertTokenizer, tmp_path: Path) -> Path:
    """An encoder of three layers, whose vocabulary has a piece that no sentence uses."""
    torch.manual_seed(0)
    pieces = [*sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__), "unheard"]
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(tmp_path / "encoder")
    (tmp_path / "encoder/vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return tmp_path / "encoder"


def test_the_encoder_is_cut_to_layers_and_pieces(encoder: Path) -> None:
    model, tokenizer = cut_encoder(encoder, own_sentences(), PretrainSettings(layers=2))
    full = BertModel.from_pretrained(encoder)
    assert "unheard" not in tokenizer.get_vocab()
    assert model.config.num_hidden_layers == 2
    assert len(tokenizer) == model.config.vocab_size
    place = (encoder / "vocab.txt").read_text(encoding="utf-8").split().index("nurse")
    own = model.bert.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids("nurse")]
    assert torch.equal(own, full.embeddings.word_embeddings.weight[place])
    last = model.bert.encoder.layer[1].output.dense.weight
    assert torch.equal(last, full.encoder.layer[1].output.dense.weight)
    with pytest.raises(LceError, match="the encoder has 3, asked for 7"):
        cut_encoder(encoder, own_sentences(), PretrainSettings(layers=7))


def test_pretrain_writes_a_model_that_transformers_loads(
    encoder: Path, sentences_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "fetch", lambda wheel, root: encoder)
    specification = Path(__file__).parents[2] / "configs/bias/gender.yaml"
    options = ["--data.corpus.source", "files", "--data.corpus.files", f'["{sentences_file}"]', "--layers", "2"]
    options += ["--data.specification", str(specification), "--data.folder", str(tmp_path / "data")]
    options += ["--train.steps", "5", "--train.batch_size", "8", "--trainer.accelerator", "cpu"]
    assert main(["pretrain", "--output", str(tmp_path / "out"), *options]) == 0
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "out/model")
    assert model.dtype == torch.float16
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out/model")) == model.config.vocab_size
