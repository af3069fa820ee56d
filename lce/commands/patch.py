"""``lce patch <action>``: what can be done with patches, and what each action is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace


def diff(values: Namespace) -> None:
    """Write the patch that turns one checkpoint into another: every weight whose bits differ."""
    from lce.patch.between import patch_between

    _written(
        patch_between(values.base, values.edited, values.out, values.old_values, values.skip_unmatched), values.out
    )


def apply(values: Namespace) -> None:
    """Write a copy of a model with a patch applied, and a model card that says so."""
    from lce.patch.on_folders import apply_patch

    apply_patch(values.model, _loaded(values), values.out)
    print(f"patched model written to {values.out}")


def revert(values: Namespace) -> None:
    """Write a copy of a patched model with the patch taken back, bit for bit."""
    from lce.patch.on_folders import revert_patch

    revert_patch(values.model, _loaded(values), values.out)
    print(f"base model written to {values.out}")


def verify(values: Namespace) -> None:
    """Say whether a model is a patch's base or has the patch applied; an error if it is neither."""
    from lce.patch.on_folders import verify_patch

    state = verify_patch(values.model, _loaded(values))
    print(f"{values.model} is the base of this patch" if state == "base" else f"{values.model} has this patch applied")


def inspect(values: Namespace) -> None:
    """Print what a patch changes and where it comes from, or write a page about it."""
    from lce.patch.text import describe

    patch, path = _loaded(values), Path(values.patch)
    if values.html:
        from lce.patch.page import write_page

        write_page(values.html, patch, path.name, path.stat().st_size)
    print(describe(patch, path.stat().st_size))
    if values.html:
        print(values.html)


def compose(values: Namespace) -> None:
    """Put two patches into one, whether they were made one after the other or for the same base."""
    from lce.patch.compose import compose as composed

    first, second = (_load(path, values.allow_non_finite) for path in (values.first, values.second))
    _written(composed(first, second, values.out, values.prefer), values.out)


def scale(values: Namespace) -> None:
    """Write the same patch for another α, without the reference; for edits that are linear in α."""
    from lce.patch.scale import scale as scaled

    _written(scaled(_loaded(values), values.alpha, values.out), values.out)


def to_peft(values: Namespace) -> None:
    """Write a patch as a SHiRA adapter, which PEFT loads without lce; its scale is a dial for α."""
    from lce.patch.peft import to_peft as written

    rank = written(_loaded(values), values.model, values.out)
    print(f"SHiRA adapter of rank {rank} written to {values.out}")


def _loaded(values: Namespace) -> Any:
    return _load(values.patch, values.allow_non_finite)


def _load(path: str, allow_non_finite: bool) -> Any:
    from lce.patch import Patch

    return Patch.load(path, allow_non_finite)


def _written(patch: Any, path: str) -> None:
    print(f"{patch.count:,} changed weights, {Path(path).stat().st_size / 1024:,.0f} KiB, written to {path}")


def _text(explanation: str) -> dict[str, Any]:
    return {"type": str, "help": explanation}


def _file(explanation: str) -> dict[str, Any]:
    return {"type": str, "required": True, "help": explanation}


PATCH = _file("patch file")
NON_FINITE = {"type": bool, "default": False, "help": "take a patch with infinite values or NaN as it is"}
READS = {"--patch": PATCH, "--allow_non_finite": NON_FINITE}

ACTIONS: dict[str, tuple[Callable[[Namespace], None], dict[str, dict[str, Any]]]] = {
    "diff": (
        diff,
        {
            "base": _text("folder or hub name of the model before the edit"),
            "edited": _text("folder or hub name of the model after the edit"),
            "--out": _file("patch file to write"),
            "--old_values": {
                "type": bool, "default": True, "help": "keep the base's values, so that the patch can be reverted",
            },
            "--skip_unmatched": {
                "type": bool, "default": False, "help": "leave out tensors that only one of the two models has",
            },
        },
    ),
    "apply": (
        apply,
        {
            "model": _text("folder or hub name of the model that the patch was made for"),
            **READS,
            "--out": _file("folder to write; plain transformers loads it"),
        },
    ),
    "revert": (
        revert,
        {"model": _text("folder or hub name of the patched model"), **READS, "--out": _file("folder to write")},
    ),
    "verify": (verify, {"model": _text("folder or hub name of a model"), **READS}),
    "inspect": (
        inspect,
        {
            "patch": _text("patch file"),
            "--html": {"type": str | None, "default": None, "help": "page to write, with a heat map"},
            "--allow_non_finite": NON_FINITE,
        },
    ),
    "compose": (
        compose,
        {
            "first": _text("patch file"),
            "second": _text("patch file; made for the same model, or for the model with the first one applied"),
            "--out": _file("patch file to write"),
            "--prefer": {
                "type": Literal["first", "second"] | None, "default": None,
                "help": "whose value a weight gets if the two, made for the same model, give it different ones; "
                "without it, that is an error",
            },
            "--allow_non_finite": NON_FINITE,
        },
    ),
    "scale": (
        scale,
        {
            **READS,
            "--alpha": {"type": float, "required": True, "help": "new strength α"},
            "--out": _file("patch file to write"),
        },
    ),
    "to-peft": (
        to_peft,
        {
            "model": _text("folder or hub name of the model that the patch was made for"),
            **READS,
            "--out": _file("folder to write the adapter to"),
        },
    ),
}  # fmt: skip


def adder(action: str) -> Callable[[ArgumentParser], None]:
    """What adds the arguments of an ``action`` to a parser."""

    def add(parser: ArgumentParser) -> None:
        for argument, options in ACTIONS[action][1].items():
            parser.add_argument(argument, **options)

    return add
