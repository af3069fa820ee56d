from __future__ import annotations

import pytest
import torch
from causal_models import tokenizer
from conftest import own_sentences

from lce.data.encoding import EncodedTexts, encode
from lce.data.next_token import NextTokenCollator, term_weights
from lce.data.specification import BiasSpecification
from lce.foundations.errors import LceError


@pytest.fixture
def corpus(spec: BiasSpecification) -> EncodedTexts:
    texts = own_sentences()
    return encode(texts, texts, tokenizer(), spec, max_length=40)


def asked_weights(collator: NextTokenCollator) -> torch.Tensor:
    return torch.cat([collator.ask(0, i).weights for i in range(len(collator.corpus))])


@pytest.mark.parametrize("term", [0.5, 1.0, 2.0, 3.0])
def test_the_mean_weight_is_one_and_that_of_terms_as_asked(corpus: EncodedTexts, term: float) -> None:
    weights = term_weights(corpus, term)
    asked = asked_weights(NextTokenCollator(corpus, 0, weights)).double()
    assert asked.mean().item() == pytest.approx(1, abs=1e-6)
    assert weights.term == term
    assert (weights.other < 1) == (term > 1)
    marks = torch.cat([corpus[i][1][1:] for i in range(len(corpus))])
    assert torch.equal(asked == term, marks | (torch.tensor(weights.other) == term))


def test_terms_cannot_weigh_more_than_everything(corpus: EncodedTexts) -> None:
    with pytest.raises(LceError, match="term_weight: 50 is too high for a mean of 1"):
        term_weights(corpus, 50)


def test_every_token_but_the_first_is_predicted_from_the_one_before(corpus: EncodedTexts) -> None:
    collator = NextTokenCollator(corpus, 1, term_weights(corpus, 2.0))
    batch = collator(0, [5, 300, 7])
    places = [(row, column) for row in range(3) for column in range(int(batch.attention_mask[row].sum()) - 1)]
    length = batch.input_ids.shape[1]
    assert batch.positions.tolist() == [row * length + column for row, column in places]
    assert batch.labels.tolist() == [int(batch.input_ids[row, column + 1]) for row, column in places]
    assert int(batch.mean_count) == len(places)
    assert (batch.input_ids[batch.attention_mask == 0] == 1).all()


def test_shares_of_a_step_count_the_whole_step(corpus: EncodedTexts) -> None:
    collator = NextTokenCollator(corpus, 1)
    whole = collator(0, [5, 300, 7, 9])
    parts = [collator(0, [5, 300, 7, 9], share, 2) for share in (0, 1)]
    assert [int(item) for part in parts for item in part.items] == [5, 7, 300, 9]
    assert all(float(part.mean_count) == len(whole.labels) / 2 for part in parts)
