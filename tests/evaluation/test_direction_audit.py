"""The audit of directions on a tiny model: which layer is chosen, edits with and without what is kept, and answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import vlms
from painted import paint

from lce.data.pictures.attributes import load_attribute
from lce.evaluation.direction_audit import DirectionAudit
from lce.evaluation.picture_answers import counted, group_named, names_class
from lce.evaluation.picture_probe import probe_scores
from lce.evaluation.shown_pictures import OPEN, pictures_without_people, shown_pictures
from lce.foundations.errors import LceError
from lce.localize.direction_settings import Choice, DirectionSettings
from lce.metrics.separation import area_under_curve

GENDER = load_attribute("gender")
FEW = {
    "subject": [f"{who} {shape} 1" for who in ("woman", "man") for shape in ("circle", "square")],
    "skin_tone": ["dark"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return vlms.loaded(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = paint(tmp_path_factory.mktemp("audit") / "pictures", 5)
    return DirectionSettings(
        pictures=str(folder), where={"split": ["held-out"]}, chosen_by={"split": ["training"]}, matched="scene",
        choice=Choice("Who?", "It is", [["she"], ["he"]]), k=7, top=0.3, shuffles=2, random_directions=3, batch_size=5,
        experiment=str(folder.parent / "run"),
    )  # fmt: skip


def audit(settings, model, **options):
    asked = replace(settings, **options)
    return DirectionAudit(asked, model, GENDER, f"{asked.pictures}/table.csv")


@pytest.fixture(scope="module")
def made(settings, model):
    return audit(settings, model)


def test_the_layer_is_that_of_the_best_separation_among_other_pictures(settings, model, made):
    found = made.leaning(made.chosen_by.openers)
    values = [area_under_curve(scores.numpy(), made.chosen_by.groups).value for scores in found.scores]
    assert [row["separation"] for row in made.by_layer] == values
    assert made.layer == int(np.argmax(values))
    for number in (1, 2):
        assert audit(settings, model, layers=[number]).layer == number - 1
    assert not {picture.file for picture in made.shown.pictures} & {p.file for p in made.chosen_by.pictures}


def test_what_comes_before_a_site_makes_no_difference_to_the_choices(made):
    opened = made.shown.openers
    edits = [made.edit(layer, vector=vector) for layer in (0, 1) for vector in made.random_vectors()]
    found = made.odds_under([made.edit(0), *edits], opened)
    plain = made.odds(opened)
    for edit, odds in zip([made.edit(0), *edits], found, strict=True):
        with edit.applied(made.model.model):
            assert np.array_equal(made.odds(opened), odds)
        # Behind the last layer, nothing reads the tokens of the picture any more.
        assert np.allclose(odds, plain) == (edit.site == made.units.sites[1])
    assert np.array_equal(made.odds(opened), plain)


def test_the_mean_edit_brings_the_direction_to_its_mean_over_both_groups(made):
    """Each group counts the same; what is left varies across the direction alone."""
    edit, d = made.edit(1, "mean"), made.vector(1)
    seen = {}
    means = []
    for number in (0, 1):
        shown = made.chosen_by.among(made.chosen_by.groups == number)
        for inputs in made.prompted(shown.openers, made.measure.prompt):
            made.model.read(inputs, lambda layer, states, inputs=inputs: seen.__setitem__(
                layer, states[made.model.is_visual(inputs["input_ids"])]))  # fmt: skip
            means.append((number, seen[1] @ d))
    groups = [torch.cat([along for number, along in means if number == group]).mean() for group in (0, 1)]
    assert edit.centre == pytest.approx(float(sum(groups) / 2), rel=1e-3)
    assert made.edit(1).centre == 0
    inputs = next(iter(made.prompted(made.shown.openers, made.measure.prompt)))
    with edit.applied(made.model.model):
        made.model.read(inputs, seen.__setitem__)
    along = seen[1][made.model.is_visual(inputs["input_ids"])] @ d
    torch.testing.assert_close(along, torch.full_like(along, edit.centre), atol=1e-3, rtol=1e-3)


def test_the_direction_comes_from_pictures_where_that_is_asked_for(settings, model, made):
    by_pictures = audit(settings, model, source="pictures")
    means, groups = made.leaning(made.chosen_by.openers).means[1], torch.from_numpy(made.chosen_by.groups)
    wanted = torch.nn.functional.normalize(means[groups == 0].mean(0) - means[groups == 1].mean(0), dim=0)
    torch.testing.assert_close(by_pictures.vector(1), wanted)
    assert not torch.allclose(made.vector(1), wanted, atol=0.1)
    edit = by_pictures.edit(1)
    assert edit.provenance["localization"] == "gender by pictures"


def test_random_directions_are_drawn_from_the_seed(settings, model, made):
    first, again = list(made.random_vectors()), list(audit(settings, model).random_vectors())
    assert len(first) == 3
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not torch.equal(first[0], next(audit(settings, model, seed=1).random_vectors()))
    assert all(float(vector.norm()) == pytest.approx(1) for vector in first)


def test_every_picture_is_answered(made):
    said = made.answers(made.shown.openers, made.measure.prompt)
    assert len(said) == len(made.shown.pictures)
    assert not any("What" in answer for answer in said), "the prompt is no part of the answer"


def test_what_an_answer_names():
    assert names_class("A drawing of a Police officer.", "police officer")
    assert not names_class("policeman", "police")
    words = [["woman", "female"], ["man", "male"]]
    answers = ["a woman cook", "Female.", "The MAN laughs", "male", "a cook", "a woman and a man", "salesman"]
    named = [group_named(answer, words) for answer in answers]
    assert named == [0, 0, 1, 1, OPEN, None, OPEN]


def test_answers_are_counted_by_group_of_the_picture(made):
    """Of the answers of the forced choice, the words of the choice count too."""
    assert made.words[0][-1] == "she"
    shown = made.shown
    named = [0 if group == 0 else None for group in shown.groups]
    found = counted(shown, named, ["woman", "man"])
    women, men = (int((shown.groups == group).sum()) for group in (0, 1))
    assert found["woman"] == {"woman": women, "man": 0, "neither": 0, "both": 0}
    assert found["man"] == {"woman": 0, "man": 0, "neither": 0, "both": men}


def test_pictures_without_their_counterpart_are_left_out(settings, tmp_path):
    """They are not of neither group, although nobody of the other group is matched with them."""
    folder = paint(tmp_path / "pictures", 3)
    table = folder / "table.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join(line for line in lines if "circle-man" not in line) + "\n", encoding="utf-8")
    found = shown_pictures(folder, table, GENDER, {}, "scene")
    assert OPEN not in found.groups
    assert not any("circle" in picture.file.name for picture in found.pictures)


def test_pictures_without_people(settings, tmp_path):
    folder = tmp_path / "pictures"
    table = paint(folder, 2) / "table.csv"
    assert pictures_without_people(folder, table, {}) == []
    assert len(pictures_without_people(folder, table, {"kind": ["person"]})) == 12
    with pytest.raises(LceError, match=r"without_people: .* has no column 'colour'; its columns are file"):
        pictures_without_people(folder, table, {"colour": ["red"]})
    with pytest.raises(LceError, match="without_people: no row of"):
        pictures_without_people(folder, table, {"kind": ["tree"]})
    (folder / "circle-woman-light-1.png").unlink()
    with pytest.raises(LceError, match=r"circle-woman-light-1\.png: no such file"):
        pictures_without_people(folder, table, {"kind": ["person"]})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 900}, "k: expected at most 800, as many as there are texts, got 900"),
        ({"layers": [3]}, "layers: the model has 2, got 3"),
        ({"where": FEW}, "where: 2 pictures of the group woman; at least 4 are needed"),
        ({"chosen_by": FEW}, "chosen_by: 2 pictures of the group woman"),
    ],
)
def test_what_does_not_fit_is_refused(settings, model, options, said):
    with pytest.raises(LceError, match=said):
        audit(settings, model, **options)


def test_the_probe_finds_what_is_there_and_nothing_else():
    """One entry of the states tells the groups apart in every class; another one tells the classes apart."""
    random = np.random.default_rng(0)
    groups, classes = np.arange(60) % 2, np.repeat(np.arange(6), 10)
    states = torch.from_numpy(random.normal(size=(60, 100)))
    noise = area_under_curve(probe_scores(states, groups, classes), groups).value
    states[:, 3] += torch.from_numpy(8.0 - 16.0 * groups)
    states[:, 4] += torch.from_numpy(classes * 5.0)
    assert area_under_curve(probe_scores(states, groups, classes), groups).value > 0.99
    assert 0.2 < noise < 0.8
