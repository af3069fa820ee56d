"""LALS: what the nearest texts say of a state, and of a picture."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import vlms
from torch.nn.functional import cosine_similarity

from lce.foundations.errors import LceError
from lce.localize.lals import TextReference, leaning, load_sentences, of_pictures, read_reference


def test_the_sentences_are_balanced_and_say_where_the_word_is():
    found = load_sentences("gender")
    assert Counter(sentence.label for sentence in found) == {1: 400, -1: 400}
    words = {sentence.text[slice(*sentence.word)] for sentence in found}
    assert len(words) == 20
    assert "This is an aunt." in {sentence.text for sentence in found}
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert (one.label, other.label) == (1, -1)
        start, end = one.word
        assert one.text[:start] + other.text[slice(*other.word)] + one.text[end:] == other.text
    assert len({sentence.text for sentence in found}) == len(found)


def test_sentences_of_ones_own(tmp_path):
    file = tmp_path / "age.yaml"
    file.write_text("pairs: [[young, old]]\ntemplates: ['A {} tree.', 'It is {}.']\n", encoding="utf-8")
    assert [sentence.text for sentence in load_sentences(str(file))] == [
        "A young tree.", "An old tree.", "It is young.", "It is old.",
    ]  # fmt: skip
    for content in ("[]", "pairs: [[a]]\ntemplates: ['{}']", "pairs: [[a, b]]\ntemplates: ['none']", "{", "pairs: []"):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(LceError, match=r"age\.yaml: expected pairs: lists of two words, and templates: sentences"):
            load_sentences(str(file))
    with pytest.raises(LceError, match="sentences height: are none of gender, nor a YAML file"):
        load_sentences("height")


@pytest.fixture
def reference():
    random = torch.Generator().manual_seed(0)
    states = torch.nn.functional.normalize(torch.randn(2, 30, 8, generator=random), dim=2)
    return TextReference(states, torch.tensor([1, -1]).repeat(15))


def test_it_is_the_mean_label_of_the_nearest_texts(reference):
    states = torch.randn(7, 8, generator=torch.Generator().manual_seed(1))
    found = leaning(reference.labels, reference.nearest(1, states, 5))
    for state, value in zip(states, found.tolist(), strict=True):
        cosines = [float(cosine_similarity(state, text, dim=0)) for text in reference.states[1]]
        nearest = sorted(range(30), key=lambda i: -cosines[i])[:5]
        assert value == pytest.approx(sum(int(reference.labels[i]) for i in nearest) / 5)


def test_several_labellings_at_once(reference):
    nearest = reference.nearest(0, torch.randn(6, 8, generator=torch.Generator().manual_seed(2)), 4).view(2, 3, 4)
    labels = torch.stack([reference.labels, -reference.labels])
    found = leaning(labels, nearest)
    assert found.shape == (2, 2, 3)
    torch.testing.assert_close(found[0], leaning(reference.labels, nearest))
    torch.testing.assert_close(found[1], -found[0])


def test_a_picture_is_as_its_tokens_that_lean_most():
    tokens = torch.tensor([[0.1, -0.9, 0.5, 0.0], [0.2, 0.2, -0.1, 0.2]])
    torch.testing.assert_close(of_pictures(tokens, 0.05), torch.tensor([-0.9, 0.2]))
    torch.testing.assert_close(of_pictures(tokens, 0.5), torch.tensor([-0.2, 0.2]))
    torch.testing.assert_close(of_pictures(tokens, 1.0), tokens.mean(1))


def test_the_direction_points_from_the_second_group_to_the_first(reference):
    direction = reference.direction(0)
    assert float(direction.norm()) == pytest.approx(1)
    along = reference.states[0] @ direction
    assert float(along[reference.labels == 1].mean()) > float(along[reference.labels == -1].mean())


def test_the_reference_holds_the_state_of_the_word_in_its_context(tmp_path):
    model, sentences = vlms.loaded(tmp_path), load_sentences("gender")[:150]
    found = read_reference(model, sentences)
    assert found.states.shape == (vlms.LAYERS, 150, 16)
    for number in (0, 77, 149):
        sentence = sentences[number]
        ids = model.processor.tokenizer(sentence.text, return_tensors="pt", return_offsets_mapping=True)
        ends = ids.pop("offset_mapping")[0][:, 1].tolist()
        with torch.inference_mode():
            states = model.model(**ids, output_hidden_states=True).hidden_states[1][0]
        wanted = states[ends.index(sentence.word[1])]
        assert float(cosine_similarity(found.states[0, number], wanted, dim=0)) == pytest.approx(1, abs=1e-5)
