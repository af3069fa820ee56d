"""Directions as units: one a layer, selected, saved and read again."""

from __future__ import annotations

import pytest
import torch
import vlms

from lce.foundations.errors import LceError
from lce.localize.direction_settings import Choice, DirectionSettings, check_directions
from lce.localize.direction_units import DirectionUnits
from lce.localize.lals import load_sentences, read_reference
from lce.localize.selection import Selection
from lce.localize.text_states import kept_reference


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return vlms.loaded(tmp_path_factory.mktemp("units"))


@pytest.fixture(scope="module")
def units(model):
    return DirectionUnits.of(model, read_reference(model, load_sentences("gender")[:40]))


def test_there_is_one_in_each_layer(units):
    assert units.shapes == {f"language_model.layers.{layer}.visual": (1,) for layer in range(vlms.LAYERS)}


def test_a_selection_says_which_layers(units, tmp_path):
    selection = units.selection([1], {1: {"layer": 1, "score": 0.9}})
    selection.save(tmp_path / "selection.safetensors")
    read = Selection.load(tmp_path / "selection.safetensors")
    assert (read.kind, read.count, read.size) == ("direction", 1, vlms.LAYERS)
    assert read.details == {"language_model.layers.1.visual": [{"layer": 1, "score": 0.9}]}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 0}, "k: expected"),
        ({"top": 0.0}, "top: expected above 0 and at most 1"),
        ({"layers": []}, "layers: expected different numbers from 1 on"),
        ({"layers": [0, 1]}, "layers: expected"),
        ({"question": ""}, "question: expected some text"),
        ({"choice": Choice(words=[["man"], ["man"]])}, "choice.words: expected two lists of different words"),
        ({"choice": Choice(words=[["man"]])}, "choice.words: expected"),
        ({"random_directions": -1}, "random_directions"),
        ({"alpha": 0.0}, "alpha: expected a number other than 0"),
        ({"edits": []}, "edits: expected each once, at least one"),
        ({"caption": "a picture"}, "caption: expected {} once"),
        ({"colours": {"pink": "#f4a6c8"}}, "colours: expected at least two"),
        ({"colours": {"pink": "pink", "blue": "#6ab4ea"}}, "colours.pink: expected a colour such as #f4a6c8"),
        ({"colours": {"a": "#f4a6c8", "b": "#6ab4ea"}, "pictures": "mine"}, "pictures: expected the drawn ones"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(options, said):
    with pytest.raises(LceError, match=said):
        check_directions(DirectionSettings(**options))
    check_directions(DirectionSettings())


def test_the_states_of_texts_are_read_once(model, tmp_path, monkeypatch, caplog):
    sentences = load_sentences("gender")[:6]
    first = kept_reference(model, sentences, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("lce.localize.text_states.read_reference", None)
        again = kept_reference(model, sentences, tmp_path)
    assert torch.equal(first.states, again.states)
    assert torch.equal(first.labels, again.labels)
    kept_reference(model, sentences[:4], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "other texts are kept apart"
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    assert torch.equal(kept_reference(model, sentences, tmp_path).states, first.states)
    assert "is read anew" in caplog.text
