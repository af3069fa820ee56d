"""Where the states of a masked model are read: at the mask token, and of a pronoun as its tokenizer has it."""

from __future__ import annotations

import pytest
import torch
from conftest import BASE
from torch.nn.functional import normalize

from lce.localize.directions import occupation_direction, pronoun_direction
from lce.localize.feature_units import Reader, contexts
from lce.metrics.occupation_pronouns import PRONOUNS, SENTENCES, is_male_dominated
from lce.models.loading import load_language_model
from lce.models.sites import find_site, states_at

JOBS = ("nurse", "plumber", "secretary", "carpenter")


@pytest.fixture(scope="module")
def reader() -> Reader:
    model, tokenizer = load_language_model(BASE)
    site = find_site(model, "layers.1")
    return Reader(model.requires_grad_(False).eval(), tokenizer, "masked", site, JOBS)


def test_the_last_token_that_counts_is_the_mask_or_the_last_word(reader: Reader) -> None:
    for text in contexts(SENTENCES, JOBS, reader.tokenizer, "masked"):
        assert text.ids[text.last] == reader.tokenizer.mask_token_id
    [text] = contexts(["I saw the {job}."], ["nurse"], reader.tokenizer, "masked")
    assert reader.tokenizer.convert_ids_to_tokens(text.ids[text.last]) == "."
    assert text.ids[text.last + 1] == reader.tokenizer.sep_token_id


def test_the_direction_of_occupations_is_read_at_the_mask(reader: Reader) -> None:
    [sentence] = SENTENCES[:1]
    found = {True: [], False: []}
    for job in JOBS:
        text = sentence.replace("{job}", job).replace("{pronoun}", reader.tokenizer.mask_token)
        ids = reader.tokenizer(text, return_tensors="pt")["input_ids"]
        place = ids[0].tolist().index(reader.tokenizer.mask_token_id)
        found[is_male_dominated(job)].append(states_at(reader.model, reader.site, ids, torch.ones_like(ids))[0, place])
    wanted = torch.stack(found[True]).mean(0) - torch.stack(found[False]).mean(0)
    direction = occupation_direction(reader, reader.states([sentence], "last"))
    assert torch.allclose(direction.vector, normalize(wanted, dim=0), atol=1e-4)


def test_the_direction_of_pronouns_is_read_in_texts_of_the_tokenizer(reader: Reader) -> None:
    found = {}
    for side, words in PRONOUNS.items():
        texts = [reader.tokenizer(word, return_tensors="pt")["input_ids"] for word in words]
        alone = [ids for ids in texts if ids.shape[1] == 3]  # a token between [CLS] and [SEP]
        states = [states_at(reader.model, reader.site, ids, torch.ones_like(ids))[0, 1] for ids in alone]
        found[side] = torch.stack(states).mean(0)
    wanted = normalize(found["he"] - found["she"], dim=0)
    assert torch.allclose(pronoun_direction(reader).vector, wanted, atol=1e-4)
