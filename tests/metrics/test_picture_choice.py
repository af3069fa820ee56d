"""The forced choice about pictures: the probabilities of the next token, in all spellings."""

from __future__ import annotations

import pytest
import torch
import vlms
from painted import painted

from lce.foundations.errors import LceError
from lce.metrics.picture_choice import PictureChoice


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return vlms.loaded(tmp_path_factory.mktemp("choice"))


def test_it_is_the_sum_over_spellings(model):
    """ "he" and "she" are tokens of the tiny tokenizer, with a space before them; " He" is not."""
    choice = PictureChoice(model, model.prompt("Who?", "It is"), [["she"], ["he"]])
    pictures = [painted("circle", gender, "light", 1) for gender in ("woman", "man")]
    inputs = model.inputs(pictures, [choice.prompt] * 2)
    found = choice.log_probabilities(inputs)
    with torch.inference_mode():
        chances = model.model(**inputs).logits[:, -1].softmax(1)
    tokenizer = model.processor.tokenizer
    for number, word in enumerate(("she", "he")):
        ids = {tokenizer.decode([token]): token for token in choice.tokens[number]}
        assert {text.strip().lower() for text in ids} == {word}
        wanted = chances[:, list(ids.values())].sum(1)
        torch.testing.assert_close(found[:, number].exp(), wanted, atol=1e-6, rtol=1e-4)


def test_words_that_are_no_tokens_are_refused(model):
    with pytest.raises(LceError, match=r"choice\.words: none of firefighter, plumber is one token of"):
        PictureChoice(model, "?", [["he"], ["firefighter", "plumber"]])
