"""LALS of pictures: against a loop over single tokens, whatever the batches, and a planted direction is found."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import vlms
from painted import SHAPES, painted
from torch.nn.functional import cosine_similarity

from lce.edit.site_edit import DirectionEdit
from lce.localize import visual_leaning
from lce.localize.directions import Direction
from lce.localize.lals import load_sentences, of_pictures, read_reference
from lce.localize.visual_leaning import Measure, leaning_under, read_leaning, shuffled_labels
from lce.metrics.separation import area_under_curve
from lce.models.identity import model_fingerprint
from lce.models.shifts import DirectionShift

K, TOP = 7, 0.3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return vlms.loaded(tmp_path_factory.mktemp("leaning"))


@pytest.fixture(scope="module")
def reference(model):
    return read_reference(model, load_sentences("gender")[:120])


@pytest.fixture(scope="module")
def pictures():
    kinds = [(shape, gender) for shape in SHAPES for gender in ("woman", "man")]
    return [partial(painted, shape, gender, "light", 3) for shape, gender in kinds]


def read(model, reference, pictures, size=4, shuffles=2, **options):
    labels = shuffled_labels(reference.labels, shuffles, 0)
    measure = Measure(model.prompt("What is it?"), K, options.get("top", TOP), size)
    return read_leaning(model, reference, pictures, measure, labels)


def test_it_is_what_a_loop_over_tokens_finds(model, reference, pictures):
    found = read(model, reference, pictures)
    assert found.scores.shape == (vlms.LAYERS, len(pictures))
    assert found.shuffled.shape == (2, vlms.LAYERS, len(pictures))
    for number in (0, 5):
        inputs = model.inputs([pictures[number]()], [model.prompt("What is it?")])
        seen = {}
        model.read(inputs, seen.__setitem__)
        tokens = seen[1][0][model.is_visual(inputs["input_ids"])[0]]
        values = []
        for token in tokens:
            cosines = cosine_similarity(token[None], reference.states[1], dim=1)
            nearest = cosines.argsort(descending=True)[:K]
            values.append(float(reference.labels[nearest].float().mean()))
        torch.testing.assert_close(found.maps[number][1], torch.tensor(values))
        torch.testing.assert_close(found.scores[1, number], of_pictures(found.maps[number][1], TOP))
        torch.testing.assert_close(found.means[1, number], tokens.mean(0), atol=1e-5, rtol=1e-4)


def test_batches_make_no_difference(model, reference, pictures, monkeypatch):
    once = read(model, reference, pictures)
    monkeypatch.setattr(visual_leaning, "SEARCHED", 1)
    again = read(model, reference, pictures, size=1)
    torch.testing.assert_close(once.scores, again.scores)
    torch.testing.assert_close(once.shuffled, again.shuffled)


def test_what_a_shift_does_to_a_layer_is_what_an_edit_of_it_does(model, reference, pictures):
    """With the states read once for all shifts, as against once for each edit."""
    shifts = {
        layer: [DirectionShift(reference.direction(layer), alpha, centre) for alpha, centre in ((1.0, 0.0), (0.5, 3.0))]
        for layer in range(vlms.LAYERS)
    }
    measure = Measure(model.prompt("What is it?"), K, TOP, 4)
    found = leaning_under(model, reference, pictures, measure, shifts)
    for layer, several in shifts.items():
        for number, shift in enumerate(several):
            direction = Direction(shift.direction, model.site(layer), model_fingerprint(model.model), "gender")
            edit = DirectionEdit(direction, shift.alpha, shift.centre, positions="visual")
            with edit.applied(model.model):
                wanted = read(model, reference, pictures).scores[layer]
            torch.testing.assert_close(found[layer].scores[number], wanted, atol=1e-5, rtol=0)
    once = leaning_under(model, reference, pictures[:1], measure, shifts)[0]
    [inputs] = [model.inputs([pictures[0]()], [measure.prompt])]
    seen = {}
    model.read(inputs, seen.__setitem__)
    added = shifts[0][0].of(seen[0][model.is_visual(inputs["input_ids"])])
    assert float(once.sizes[0]) == pytest.approx(float(added.norm(dim=1).square().mean().sqrt()), rel=1e-4)


def test_shuffles_keep_as_many_of_each_label(reference):
    found = shuffled_labels(reference.labels, 5, 3)
    assert found.sum(1).tolist() == [int(reference.labels.sum())] * 5
    assert torch.equal(found, shuffled_labels(reference.labels, 5, 3))
    assert not torch.equal(found[0], found[1])
    assert shuffled_labels(reference.labels, 0, 3).shape == (0, len(reference.labels))


def test_a_direction_that_is_planted_in_one_layer_is_found_there(model, reference, pictures):
    """Visual tokens of red pictures, of women, are moved towards the texts about women in the last layer alone."""
    direction, place = reference.direction(1), model.layers[1]
    images = [opened() for opened in pictures]
    is_red = torch.tensor([np.asarray(image).mean((0, 1))[0] > np.asarray(image).mean((0, 1))[2] for image in images])
    visual = model.is_visual(model.inputs(images, [model.prompt("What is it?")] * len(images))["input_ids"])

    def plant(_, __, output):
        states = output[0] if isinstance(output, tuple) else output
        signs = torch.where(is_red, 1.0, -1.0)[:, None, None]
        moved = states + 50 * signs * direction * visual[:, :, None]
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = place.register_forward_hook(plant)
    try:
        found = read(model, reference, pictures, size=len(pictures), top=1.0)
    finally:
        handle.remove()
    groups = np.where(is_red.numpy(), 0, 1)
    assert area_under_curve(found.scores[1].numpy(), groups).value == 1
    assert float(found.scores[1][is_red].min()) > 0
    assert float(found.scores[1][~is_red].max()) < 0
