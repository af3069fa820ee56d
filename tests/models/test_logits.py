from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizer,
    ConvBertConfig,
    ConvBertForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    EsmConfig,
    EsmForMaskedLM,
    LongformerConfig,
    LongformerForMaskedLM,
    MobileBertConfig,
    MobileBertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from lce.foundations.errors import LceError
from lce.models.layers import prunable_parameters
from lce.models.loading import load_masked_lm
from lce.models.logits import masked_logits
from lce.training.module import MaskedLanguageModel, linear_schedule

SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
ARCHITECTURES = {
    "bert": lambda: BertForMaskedLM(BertConfig(**SMALL)),
    "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**SMALL)),
    "electra": lambda: ElectraForMaskedLM(ElectraConfig(**SMALL, embedding_size=8)),
    "albert": lambda: AlbertForMaskedLM(AlbertConfig(**SMALL, embedding_size=8)),
    "distilbert": lambda: DistilBertForMaskedLM(
        DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    ),
    "mobilebert": lambda: MobileBertForMaskedLM(
        MobileBertConfig(**SMALL, embedding_size=8, intra_bottleneck_size=8, num_feedforward_networks=1)
    ),
    "convbert": lambda: ConvBertForMaskedLM(ConvBertConfig(**SMALL, embedding_size=8)),
    "longformer": lambda: LongformerForMaskedLM(LongformerConfig(**SMALL, attention_window=4)),
    "esm": lambda: EsmForMaskedLM(EsmConfig(**SMALL, pad_token_id=0, mask_token_id=1)),
    "deberta": lambda: DebertaV2ForMaskedLM(
        DebertaV2Config(**SMALL, relative_attention=True, pos_att_type=["p2c", "c2p"], max_relative_positions=8)
    ),
    "modernbert": lambda: ModernBertForMaskedLM(ModernBertConfig(**SMALL, pad_token_id=0)),
}


@pytest.fixture(params=ARCHITECTURES)
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    return ARCHITECTURES[request.param]().eval()


def test_masked_logits_are_those_of_the_whole_model(any_model: PreTrainedModel) -> None:
    ids = torch.randint(5, 50, (3, 7), generator=torch.Generator().manual_seed(0))
    attention = torch.ones_like(ids)
    attention[1, 5:] = 0
    positions = torch.tensor([0, 3, 9, 20])
    with torch.no_grad():
        whole = any_model(input_ids=ids, attention_mask=attention).logits.flatten(0, 1)[positions]
        torch.testing.assert_close(masked_logits(any_model, ids, attention, positions), whole)
        again = any_model(input_ids=ids, attention_mask=attention).logits
    assert again.shape == (3, 7, 50), "the model is left as it was"


def test_what_follows_the_last_attention_is_computed_at_the_asked_positions_only(model: BertForMaskedLM) -> None:
    sizes = []
    model.bert.encoder.layer[1].intermediate.register_forward_hook(lambda m, i, output: sizes.append(output.shape[:2]))
    ids = torch.randint(5, 50, (3, 7))
    masked_logits(model, ids, torch.ones_like(ids), torch.tensor([0, 3, 9, 20]))
    assert sizes[-1] == (1, 4)


def test_prunable_are_the_matrices_of_the_layers(any_model: PreTrainedModel) -> None:
    parameters = prunable_parameters(any_model)
    own = dict(any_model.named_parameters())
    assert parameters
    assert all(own[name] is parameter and parameter.ndim == 2 for name, parameter in parameters.items())
    for name in own:
        if any(part in name for part in ("embed", "pooler", "Norm", "norm", "bias", "lm_head", "cls.", "predictions")):
            assert name not in parameters


def test_prunable_weights_of_bert(model: BertForMaskedLM) -> None:
    layers = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    parts = (*layers, "intermediate.dense", "output.dense")
    expected = [f"bert.encoder.layer.{i}.{part}.weight" for i, part in itertools.product(range(2), parts)]
    assert list(prunable_parameters(model)) == expected


def test_freezing(model: BertForMaskedLM) -> None:
    module = MaskedLanguageModel(model, 1e-3, 10, 0, freeze=["embeddings"])
    assert not model.bert.embeddings.word_embeddings.weight.requires_grad
    assert model.bert.encoder.layer[0].output.dense.weight.requires_grad
    assert all(
        p.requires_grad for group in module.configure_optimizers()["optimizer"].param_groups for p in group["params"]
    )
    with pytest.raises(LceError, match="matches no parameter"):
        MaskedLanguageModel(model, 1e-3, 10, 0, freeze=["no such name"])


def test_the_learning_rate_rises_and_falls_linearly() -> None:
    factor = linear_schedule(warmup_steps=4, steps=14)
    assert [factor(step) for step in (0, 1, 3)] == pytest.approx([0.2, 0.4, 0.8])
    assert [factor(step) for step in (4, 9, 14)] == pytest.approx([1.0, 0.5, 0.0])
    assert linear_schedule(0, 10)(0) == 1.0


def test_a_model_is_loaded_in_float32(base: Path) -> None:
    model, tokenizer = load_masked_lm(base)
    assert model.dtype == torch.float32
    assert tokenizer.mask_token == "[MASK]"


def test_what_is_no_masked_language_model_is_refused(tmp_path: Path, tokenizer: BertTokenizer) -> None:
    with pytest.raises(LceError, match="cannot be loaded"):
        load_masked_lm(tmp_path)
    classifier = BertForSequenceClassification(BertConfig(**{**SMALL, "vocab_size": len(tokenizer)}))
    classifier.save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    with pytest.raises(LceError, match="is a model for sequence classification"):
        load_masked_lm(tmp_path / "classifier")
    about = json.loads((tmp_path / "classifier/config.json").read_text(encoding="utf-8"))
    (tmp_path / "classifier/config.json").write_text(json.dumps(about | {"architectures": None}), encoding="utf-8")
    with pytest.raises(LceError, match="is no masked language model; its checkpoint lacks cls"):
        load_masked_lm(tmp_path / "classifier")
    BertForMaskedLM(BertConfig(**{**SMALL, "vocab_size": len(tokenizer)})).save_pretrained(tmp_path / "maskless")
    tokenizer.save_pretrained(tmp_path / "maskless")
    about = json.loads((tmp_path / "maskless/tokenizer_config.json").read_text(encoding="utf-8"))
    about["mask_token"] = None
    (tmp_path / "maskless/tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(LceError, match="its tokenizer has no mask token"):
        load_masked_lm(tmp_path / "maskless")
    BertForMaskedLM(BertConfig(**SMALL)).save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    with pytest.raises(LceError, match="tokens, the model only 50"):
        load_masked_lm(tmp_path / "small")
