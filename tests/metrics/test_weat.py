from __future__ import annotations

from itertools import combinations
from pathlib import Path
from statistics import mean, stdev

import literal
import pytest
import torch
from conftest import BASE

from lce.foundations.errors import LceError
from lce.metrics.association_tests import load_test
from lce.metrics.items import differences, random
from lce.metrics.scoring import TokenBudget
from lce.metrics.seat import sentences
from lce.metrics.weat import Weat, WeatScorer, _resampled_mean, cosines
from lce.models.loading import load_language_model


def weat(x: torch.Tensor, y: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> Weat:
    """The metric of vectors of shape (layers, words, width)."""
    targets = torch.cat([x, y], 1)
    metric = Weat("own")
    number = torch.arange(targets.shape[1])
    metric.update(item=number, is_x=number < x.shape[1], cosines_a=cosines(targets, a), cosines_b=cosines(targets, b))
    return metric


def layer(*rows: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([rows])


def test_a_case_worked_by_hand() -> None:
    """With a = (1, 0) and b = (0, 1): s = cos − sin of the angle, i.e. 1, 0 for X and 0, −1 for Y, but for (3, 4)."""
    score = weat(layer((2, 0), (1, 1)), layer((3, 4), (0, 5)), layer((1, 0)), layer((0, 1))).scores()["own"]
    s = [1.0, 0.0, 0.6 - 0.8, -1.0]
    assert score.value == pytest.approx((mean(s[:2]) - mean(s[2:])) / stdev(s))
    reached = [sum(s[i] for i in first) >= s[0] + s[1] - 1e-9 for first in combinations(range(4), 2)]
    assert score.details["p_value"] == pytest.approx(sum(reached) / 6)
    assert score.n == 6


def test_the_interval_resamples_attributes() -> None:
    angles = torch.tensor([0.1, 0.5, 0.9, 1.4])
    found = cosines(layer((1, 0), (0, 1)), torch.stack([angles.cos(), angles.sin()], 1)[None]).numpy()
    assert found.shape[-1] == len(angles)
    assert _resampled_mean(found, random()).std(0) == pytest.approx(found.std(-1) / len(angles) ** 0.5, rel=0.05)


def test_swapping_the_sets_turns_the_sign() -> None:
    random = torch.Generator().manual_seed(0)
    x, y, a, b = (torch.randn(3, 5, 8, generator=random) for _ in range(4))
    effect = weat(x, y, a, b).compute()
    torch.testing.assert_close(weat(y, x, a, b).compute(), -effect)
    torch.testing.assert_close(weat(x, y, b, a).compute(), -effect)


def test_two_models_are_compared_word_by_word() -> None:
    random = torch.Generator().manual_seed(0)
    x, y, a, b = (torch.randn(3, 5, 8, generator=random) for _ in range(4))
    metric, opposite = weat(x, y, a, b), weat(x, y, b, a)
    row = differences(metric, opposite)["own"]
    assert row["value"] == pytest.approx(2 * metric.compute().item())
    signed = [z * sign for z, sign in zip(metric.items()["association"], [1] * 5 + [-1] * 5, strict=True)]
    observed = abs(sum(signed))
    flips = [abs(sum(v * (1 if bits >> i & 1 else -1) for i, v in enumerate(signed))) for bits in range(2**10)]
    expected = sum(flip >= observed - 1e-9 for flip in flips) / 2**10
    assert row["tests"][0]["p_value"] == pytest.approx(expected), "2^10 exchanges, all of them tried"
    assert differences(metric, metric)["own"]["tests"][0]["p_value"] == 1


@pytest.mark.parametrize("name", ["weat6", "weat7", "weat8", "seat6b", "seat8"])
def test_against_the_definition_on_the_bundled_model(name: str) -> None:
    model, tokenizer = load_language_model(BASE)
    test = load_test(name)
    score = WeatScorer(test, tokenizer).score(model.eval(), TokenBudget(300)).scores()[name]
    assert score.details["layers"] == pytest.approx(literal.association(model, tokenizer, test), abs=1e-4)
    assert score.value == pytest.approx(mean(score.details["layers"]))
    assert 0 < score.details["p_value"] < 1


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("seat6", (64, 64, 101, 112)),
        ("seat6b", (80, 80, 101, 112)),
        ("seat7", (72, 72, 80, 80)),
        ("seat7b", (72, 72, 64, 64)),
        ("seat8", (56, 56, 80, 80)),
        ("seat8b", (56, 56, 64, 64)),
    ],
)
def test_seat_sets_have_the_published_sizes(name: str, sizes: tuple[int, ...]) -> None:
    test = load_test(name)
    assert tuple(map(len, (test.x, test.y, test.a, test.b))) == sizes


def test_seat_sentences_of_every_kind_of_word() -> None:
    ends = {
        "boy": ("This is a boy.", "Boys are people."),
        "office": ("This is an office.", "Offices are things."),
        "child": ("This is a child.", "Children are things."),
        "business": ("This is a business.", "Businesses are things."),
        "family": ("This is a family.", "Families are things."),
        "NASA": ("This is NASA.", "It is NASA."),
        "professional": ("This is professional.", "They are professional."),
        "Ann": ("This is Ann.", "The person's name is Ann."),
        "she": ("She is here.", "She is a person."),
        "him": ("It is him.", "That is him."),
        "hers": ("This is hers.", "Hers is here."),
    }
    for word, (first, last) in ends.items():
        made = sentences([word])
        assert (made[0], made[-1]) == (first, last)


def test_own_tests(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("x: [sun, star, sky]\ny: [moon, sea]\na: [day]\nb: [night]\nleft_out: [sky]", encoding="utf-8")
    assert load_test(path).x == ("sun", "star")
    path.write_text("encoding: templates\nx: [Sue]\ny: [Tom]\na: [day]\nb: [he]\nleft_out:\n", encoding="utf-8")
    assert load_test(path).protocol == "seat"
    assert len(load_test(path).x) == 8
    for text, message in (
        ("x: [sun]", "expected the lists"),
        ("x: [sun]\ny: moon\na: [day]\nb: [night]", "y must be a list of texts"),
        ("x: [sun, star]\ny: [a, b]\na: [day]\nb: [night]\nleft_out: day", "left_out must be a list"),
        ("x: [sun, star]\ny: [a, b]\na: [day]\nb: [night]\nleft_out: [week]", "left_out names 'week'"),
        ("x: [sun]\ny: [a, b]\na: [day]\nb: [night]", r"same size, .* got \[1, 2, 1, 1\]"),
        ("x: [sun]\ny: [moon]\na: [day]\nb: [night]", "at least 2"),
        ("x: [sun, sun]\ny: [a, b]\na: [day]\nb: [night]", "x holds 'sun' twice"),
        ("x: [sun, moon]\ny: [a, b]\na: [day, night]\nb: [night, day]", "must differ"),
        ("encoding: poems\nx: [sun]\ny: [a]\na: [day]\nb: [night]", "encoding must be one of words, sentences"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(LceError, match=message):
            load_test(path)
    with pytest.raises(LceError, match=r"known are seat6, seat6b, .*, weat8"):
        load_test("weat99")
