from __future__ import annotations

import pytest
import torch
from conftest import own_sentences
from transformers import BertTokenizer

from lce.data.encoding import EncodedTexts, encode
from lce.data.masking import MaskingCollator, MaskingProbabilities, masking_probabilities
from lce.data.specification import BiasSpecification
from lce.foundations.errors import LceError


@pytest.fixture
def corpus(tokenizer: BertTokenizer, spec: BiasSpecification) -> EncodedTexts:
    return encode(own_sentences(), own_sentences(), tokenizer, spec, max_length=32)


def special(tokenizer: BertTokenizer) -> torch.Tensor:
    return torch.tensor(tokenizer.all_special_ids)


def test_all_sub_tokens_of_a_term_are_marked(tokenizer: BertTokenizer, spec: BiasSpecification) -> None:
    text = "the mathematics of child-care and sculpture"
    encoded = encode([text], [text], tokenizer, spec, max_length=64)
    ids, marks = encoded[0]
    marked = tokenizer.convert_ids_to_tokens(ids[marks].tolist())
    assert marked[:3] == ["child", "-", "care"]
    assert "".join(piece.removeprefix("##") for piece in marked[3:]) == "sculpture"


def test_the_corpus_average_is_exact(tokenizer: BertTokenizer, corpus: EncodedTexts) -> None:
    p = masking_probabilities(corpus, special(tokenizer), term=0.3, average=0.15)
    ordinary = ~torch.isin(corpus.ids, special(tokenizer))
    expected = torch.where(corpus.is_term, p.term, p.other)[ordinary].double().mean()
    assert expected.item() == pytest.approx(0.15, abs=1e-8)
    assert p.term == 0.3
    assert p.other < 0.15


def test_without_terms_masking_is_plain(tokenizer: BertTokenizer) -> None:
    texts = ["the house and the bridge"]
    encoded = encode(texts, texts, tokenizer, None, max_length=16)
    assert masking_probabilities(encoded, special(tokenizer), 0.3, 0.15).other == 0.15


@pytest.mark.parametrize(("term", "average"), [(0.0, 0.15), (0.3, 1.0), (0.9, 0.05)])
def test_impossible_probabilities_are_refused(
    tokenizer: BertTokenizer, corpus: EncodedTexts, term: float, average: float
) -> None:
    with pytest.raises(LceError, match="probability"):
        masking_probabilities(corpus, special(tokenizer), term, average)


def test_shares_of_masked_replaced_and_kept(tokenizer: BertTokenizer, corpus: EncodedTexts) -> None:
    collator = MaskingCollator(corpus, tokenizer, MaskingProbabilities(term=0.5, other=0.2), seed=1)
    counts = {"terms": 0, "term masked": 0, "others": 0, "other masked": 0, "mask": 0, "kept": 0, "chosen": 0}
    for epoch in range(30):
        for index in range(0, len(corpus), 4):
            ids, is_term = corpus[index]
            masked, chosen = collator.mask(ids, is_term, epoch, index)
            untouched = torch.ones_like(ids, dtype=torch.bool)
            untouched[chosen] = False
            assert torch.equal(masked[untouched], ids[untouched])
            assert not torch.isin(ids[chosen], special(tokenizer)).any()
            ordinary = ~torch.isin(ids, special(tokenizer))
            counts["terms"] += int(is_term.sum())
            counts["term masked"] += int(is_term[chosen].sum())
            counts["others"] += int((ordinary & ~is_term).sum())
            counts["other masked"] += int((~is_term[chosen]).sum())
            counts["mask"] += int((masked[chosen] == tokenizer.mask_token_id).sum())
            counts["kept"] += int((masked[chosen] == ids[chosen]).sum())
            counts["chosen"] += len(chosen)
    assert counts["term masked"] / counts["terms"] == pytest.approx(0.5, abs=0.03)
    assert counts["other masked"] / counts["others"] == pytest.approx(0.2, abs=0.02)
    assert counts["mask"] / counts["chosen"] == pytest.approx(0.8, abs=0.03)
    assert counts["kept"] / counts["chosen"] == pytest.approx(0.1, abs=0.03)


def test_a_batch_is_padded_and_labelled(tokenizer: BertTokenizer, corpus: EncodedTexts) -> None:
    collator = MaskingCollator(corpus, tokenizer, MaskingProbabilities(0.5, 0.2), seed=1)
    indices = [0, 300, 7]
    batch = collator(3, indices)
    assert batch.attention_mask.sum(-1).tolist() == [len(corpus[i][0]) for i in indices]
    rows, columns = batch.positions // batch.input_ids.shape[1], batch.positions % batch.input_ids.shape[1]
    labels = [int(corpus[indices[r]][0][c]) for r, c in zip(rows.tolist(), columns.tolist(), strict=True)]
    assert batch.labels.tolist() == labels
    alone = collator(3, [300])
    assert torch.equal(alone.input_ids[0], batch.input_ids[1, : alone.input_ids.shape[1]]), "company does not matter"
    assert not torch.equal(collator(4, indices).input_ids, batch.input_ids), "another epoch masks other tokens"


def test_shares_of_a_step_average_to_its_mean_loss(tokenizer: BertTokenizer, corpus: EncodedTexts) -> None:
    collator = MaskingCollator(corpus, tokenizer, MaskingProbabilities(0.5, 0.2), seed=1)
    step = list(range(300, 321))
    whole = collator(0, step)
    shares = [collator(0, step, share, 4) for share in range(4)]
    assert sum(len(share.labels) for share in shares) == len(whole.labels)
    assert all(share.mean_count == len(whole.labels) / 4 for share in shares)
    assert whole.mean_count == len(whole.labels)
    assert sorted(i for share in shares for i in share.items.tolist()) == step
