from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import made
from patches import NAME, OTHER, changes_of, claiming, model, patch_for, patch_of, weights

from lce.cli import main
from lce.foundations.errors import LceError
from lce.patch import Patch
from lce.patch.compose import compose
from lce.patch.scale import scale
from lce.storage.changes import Change


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(p, other.get_parameter(name)) for name, p in one.named_parameters())


def test_disjoint_patches_compose_in_any_order(tmp_path: Path) -> None:
    base = model()
    first, second = patch_for(base, positions={NAME: [1, 9]}), patch_for(base, positions={NAME: [3, 200], OTHER: [0]})
    one = compose(first, second, tmp_path / "a").apply(base)
    assert same(one, compose(second, first, tmp_path / "b").apply(base))
    assert int((one.get_parameter(NAME) != base.get_parameter(NAME)).sum()) == 4
    Patch.load(tmp_path / "a").revert_(one)
    assert same(one, base)


def test_conflicts_are_listed_and_settled_on_request(tmp_path: Path) -> None:
    base = model()
    first = patch_for(base, positions={NAME: [1, 9, 20]})
    second = patch_for(base, positions={NAME: [9, 20, 30]}, step_size=0.25)
    with pytest.raises(LceError, match=rf"different values to the same weights: {NAME} at 2 weights \(9, 20\)"):
        compose(first, second, tmp_path / "p")
    assert not (tmp_path / "p").exists()
    for prefer, winner in (("first", first), ("second", second)):
        both = compose(first, second, tmp_path / "p", prefer)
        edited = both.apply(base)
        values = edited.get_parameter(NAME).flatten()
        change = changes_of(winner)[NAME]
        assert torch.equal(values[change.indices], change.new)
        assert both.count == 4
        assert both.provenance["conflicts"] == [f"{NAME} at 2 weights (9, 20)"]
        both.revert_(edited)
        assert same(edited, base)
    same_values = patch_for(base, positions={NAME: [9]})
    assert compose(first, same_values, tmp_path / "p").count == 3, "the same value twice is no conflict"


def test_patches_made_one_after_the_other(tmp_path: Path) -> None:
    base = model()
    first = patch_for(base, positions={NAME: [1, 9]})
    middle = first.apply(base)
    second = patch_for(middle, positions={NAME: [9, 30], OTHER: [4]})
    both = compose(first, second, tmp_path / "p")
    edited = both.apply(base)
    assert same(edited, second.apply(middle))
    assert both.parameters[NAME].sha256_after == second.parameters[NAME].sha256_after
    both.revert_(edited)
    assert same(edited, base)
    with pytest.raises(LceError, match="different models"):
        compose(second, first, tmp_path / "q")


def test_patches_of_different_models_do_not_compose(tmp_path: Path) -> None:
    with pytest.raises(LceError, match="made for different models"):
        compose(patch_for(model()), patch_for(made("bert", seed=1)), tmp_path / "p")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alpha", [-2.0, 0.1, 1.0, 7.5])
def test_scaling_is_the_edit_with_another_alpha_bit_for_bit(alpha: float, dtype: torch.dtype, tmp_path: Path) -> None:
    base = made("bert", dtype=dtype)
    scaled = scale(patch_for(base, alpha=2.0), alpha, tmp_path / "p")
    assert same(Patch.load(tmp_path / "p").apply(base), patch_for(base, alpha=alpha).apply(base))
    assert (scaled.provenance["alpha"], scaled.provenance["scaled_from_alpha"]) == (alpha, 2.0)
    edited = scaled.apply(base)
    scaled.revert_(edited)
    assert same(edited, base)


def test_what_cannot_be_scaled(tmp_path: Path) -> None:
    base = model()
    patch = patch_for(base)
    for alpha in (0.0, float("inf")):
        with pytest.raises(LceError, match="other than 0"):
            scale(patch, alpha, tmp_path / "p")
    with pytest.raises(LceError, match="not finite"):
        scale(patch, 1e39, tmp_path / "p")
    with pytest.raises(LceError, match="changes no weight"):
        scale(patch, 1e-30, tmp_path / "p")
    for kept in ({"keep_old": False}, {"keep_full": False}):
        with pytest.raises(LceError, match=r"without the old or the full-step .* only edits that are linear in α have"):
            scale(patch_of(changes_of(patch), weights(base), patch.provenance, **kept), 1.0, tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_patches_that_take_each_other_back(tmp_path: Path) -> None:
    base = model()
    first = patch_for(base)
    edited = first.apply(base)
    back = {n: Change(c.indices, c.old, c.shape, c.new) for n, c in changes_of(first).items() if c.old is not None}
    with pytest.raises(LceError, match="together they change nothing"):
        compose(first, patch_of(back, weights(edited)), tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_a_second_patch_that_only_claims_to_follow_the_first(tmp_path: Path) -> None:
    base = model()
    first = patch_for(base)
    second = patch_for(first.apply(base))
    for lie in ({"dtype": "F16"}, {"shape": (32, 16)}):
        liar = claiming(second, {NAME: replace(second.parameters[NAME], **lie)})
        with pytest.raises(LceError, match="different models"):
            compose(first, liar, tmp_path / "p")
    other = patch_for(made("bert", seed=1))
    follows = replace(other.parameters[NAME], sha256=first.parameters[NAME].sha256_after or "")
    liar = claiming(other, {NAME: follows, OTHER: second.parameters[OTHER]})
    with pytest.raises(LceError, match="other old values"):
        compose(first, liar, tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = model()
    for name, positions in (("a", [1, 9]), ("b", [9, 30])):
        patch_for(base, positions={NAME: positions}, step_size=len(name) + positions[0], path=tmp_path / name)
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert main(["patch", "compose", a, b, "--out", c]) == 2
    assert "--prefer first or --prefer second" in capsys.readouterr().err
    assert main(["patch", "compose", a, b, "--out", c, "--prefer", "second"]) == 0
    assert "3 changed weights" in capsys.readouterr().out
    assert main(["patch", "scale", "--patch", a, "--alpha", "-1", "--out", c]) == 0
    assert Patch.load(c).provenance["alpha"] == -1
