"""Heads as units, how they are described and ranked, and the rule by which they are selected."""

from __future__ import annotations

import pytest
import torch
from clips import HEADS, LAYERS, TEMPLATES, loaded
from head_audits import audit, selected
from painted import paint
from torch.nn import functional as F

from lce.data.pictures.attributes import Attribute, Group, load_attribute
from lce.data.pictures.prompts import filled
from lce.foundations.errors import LceError
from lce.localize.head_settings import HeadSettings, check_heads
from lce.localize.head_units import HeadUnits
from lce.localize.heads import Dictionary, concept_direction, prompt_embeddings
from lce.localize.selection import Selection

ALL = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("heads")


@pytest.fixture(scope="module")
def clip(folder):
    return loaded(folder / "model")


@pytest.fixture(scope="module")
def pictures(folder):
    return paint(folder / "pictures")


@pytest.fixture(scope="module")
def made(clip, pictures):
    return audit(clip, pictures, rank=1)


@pytest.mark.parametrize(
    ("template", "name", "text"),
    [
        ("a {}", "cook", "a cook"),
        ("a {}", "artist", "an artist"),
        ("A {} on a table", "Egg", "An Egg on a table"),
        ("an emoji of a {}", "old man", "an emoji of an old man"),
        ("{}", "artist", "artist"),
        ("schema {}", "artist", "schema artist"),
        ("a photo of {}", "{}", "a photo of {}"),
    ],
)
def test_templates_are_filled_in(template, name, text):
    assert filled(template, name) == text


def test_prompts_of_a_name_are_averaged(clip):
    found = prompt_embeddings(clip, ["circle", "old woman"], TEMPLATES)
    each = clip.text_embeddings(["an old woman", "a drawing of an old woman"])
    torch.testing.assert_close(found[1], F.normalize(each.mean(0), dim=0), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


def test_the_direction_leads_from_the_second_group_to_the_first(clip):
    attribute = load_attribute("gender")
    direction = concept_direction(clip, attribute, TEMPLATES)
    assert float(direction.norm()) == pytest.approx(1)
    one, other = (prompt_embeddings(clip, group.words, TEMPLATES) for group in attribute.groups)
    assert float((one.mean(0) - other.mean(0)) @ direction) > 0
    turned = Attribute("gender", "gender", attribute.groups[::-1])
    torch.testing.assert_close(concept_direction(clip, turned, TEMPLATES), -direction)


def test_groups_that_are_embedded_alike_have_no_direction(clip):
    groups = Group("one", ("a",), ("girl", "boy")), Group("other", ("b",), ("boy", "girl"))
    with pytest.raises(LceError, match="embeds prompts about one and other alike"):
        concept_direction(clip, Attribute("none", "c", groups), TEMPLATES)


def test_the_dictionary_begins_with_the_groups_and_leaves_out_what_names_them(clip):
    attribute = load_attribute("gender")
    general = ["circle", "old woman", "two girls", "Woman cook", "circle", "womanly", "boyish square", "the man"]
    dictionary = Dictionary.of(clip, attribute, general, "a {}")
    assert dictionary.texts == [*attribute.words, "circle", "womanly", "boyish square"]
    assert dictionary.demographic == len(attribute.words)
    wanted = clip.text_embeddings([filled("a {}", text) for text in dictionary.texts])
    torch.testing.assert_close(dictionary.embeddings, wanted)


def test_heads_are_units_of_their_model(clip, tmp_path):
    units, other = HeadUnits.of(clip), HeadUnits.of(loaded(tmp_path / "half", dtype=torch.float16))
    assert units.shapes == {f"vision_model.encoder.layers.{layer}.heads": (HEADS,) for layer in range(LAYERS)}
    assert units.fingerprint != other.fingerprint
    positions = units.positions([(2, 3), (0, 1), (2, 0), (2, 3)])
    assert [found.tolist() for found in positions.values()] == [[1], [], [0, 3]]


def test_every_head_is_described(made):
    reports = made.localizer.reports
    assert [(report.layer, report.head) for report in reports] == ALL
    dictionary = made.localizer.dictionary
    torch.testing.assert_close(torch.tensor([report.score for report in reports]).view(LAYERS, HEADS).double(),
                               made.statistics.scores(), atol=1e-6, rtol=0)  # fmt: skip
    for report in reports:
        named = [i for i, text in enumerate(report.texts, 1) if text.text < dictionary.demographic]
        assert report.rank == (named[0] if named else None)
        assert 0 < len(report.texts) <= made.settings.texts
        about = report.as_json(dictionary)
        assert [text["text"] for text in about["texts"]] == [dictionary.texts[text.text] for text in report.texts]
        shares = [text.share for text in report.texts]
        assert min(shares) >= 0
        assert 0 < sum(shares) <= 1 + 1e-9
        assert about["explained_by_groups"] == pytest.approx(
            sum(text["share"] for text in about["texts"] if text["text"] in made.attribute.words)
        )


def test_only_heads_that_an_early_text_describes_are_ranked_by_score(made):
    ranked = made.localizer.ranked()
    early = {(one.layer, one.head) for one in made.localizer.reports if one.rank is not None and one.rank <= 1}
    assert {(report.layer, report.head) for report in ranked} == early
    assert 0 < len(early) < len(ALL), "the rule leaves some out"
    scores = [report.score for report in ranked]
    assert scores == sorted(scores, reverse=True)
    for size in (1, len(early)):
        selection = made.localizer.selection(size)
        chosen = [(report.layer, report.head) for report in ranked[:size]]
        assert made.units.heads_of(selection) == sorted(chosen)
    with pytest.raises(LceError, match=f"{len(early) + 1} heads are wanted, but only {len(early)} are described"):
        made.localizer.selection(len(early) + 1)


def test_labels_do_not_matter_to_what_is_selected(clip, pictures, made, tmp_path):
    """Neither the groups nor the classes of the pictures: the direction comes from prompts alone."""
    table = (pictures / "table.csv").read_text(encoding="utf-8")
    swapped = table.replace(",woman,", ",?,").replace(",man,", ",woman,").replace(",?,", ",man,")
    (tmp_path / "table.csv").write_text(swapped, encoding="utf-8")
    other = audit(clip, pictures, rank=1, table=str(tmp_path / "table.csv"))
    assert (other.group != made.group).all()
    assert other.localizer.reports == made.localizer.reports


def test_a_selection_is_kept_with_what_is_known_of_its_heads(made, tmp_path):
    selection = selected(made, (2, 3), (0, 1), (2, 0))
    selection.save(tmp_path / "s.safetensors")
    loaded_again = Selection.load(tmp_path / "s.safetensors")
    assert made.units.heads_of(loaded_again) == [(0, 1), (2, 0), (2, 3)]
    assert (loaded_again.kind, loaded_again.target) == ("head", made.units.fingerprint)
    assert loaded_again.details == selection.details
    [first], last = loaded_again.details.values()
    assert [(row["layer"], row["head"]) for row in (first, *last)] == [(0, 1), (2, 0), (2, 3)]
    assert {"score", "rank", "texts", "explained_by_groups"} <= set(first)


@pytest.mark.parametrize("name", ["size", "views", "rank", "texts", "batch_size", "retrieved"])
def test_settings_that_have_to_be_positive(name):
    for value in (0, -1):
        with pytest.raises(LceError, match=f"{name}: expected"):
            check_heads(HeadSettings(**{name: value}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 21}, r"rank: expected at most texts \(20\), got 21"),
        ({"templates": []}, "templates: expected at least one"),
        ({"templates": ["a {}", "a picture"]}, "templates: expected {} once in each, got 'a picture'"),
        ({"templates": ["{} {}"]}, "templates: expected {} once in each"),
        ({"edits": []}, "edits: expected each once, at least one"),
        ({"edits": ["mean", "mean"]}, "edits: expected each once"),
        ({"classes": ["cook"]}, "classes: expected at least two different ones"),
        ({"classes": ["cook", "cook"]}, "classes: expected at least two different ones"),
        ({"random_sets": -1}, "random_sets: expected 0 or more"),
        ({"seed": -1}, "seed: expected 0 or more"),
    ],
)
def test_settings_that_cannot_be_right(options, message):
    with pytest.raises(LceError, match=message):
        check_heads(HeadSettings(**options))
