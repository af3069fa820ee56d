"""``lce patch <action>``: what can be done with patches, and what each action is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from lce.commands.arguments import Arguments
from lce.foundations.errors import LceError


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
    from lce.patch.record import is_hook_patch

    if is_hook_patch(values.patch):
        from lce.patch.hooks import HookPatch
        from lce.patch.loading import load_model

        HookPatch.load(values.patch).check(load_model(values.model))
        print(f"{values.model} is the base of this patch")
        return
    state = _loaded(values).verify(values.model)
    print(f"{values.model} is the base of this patch" if state == "base" else f"{values.model} has this patch applied")


def inspect(values: Namespace) -> None:
    """Print what a patch changes and where it comes from, or write a page about it."""
    from lce.patch.record import is_hook_patch
    from lce.patch.text import describe

    path = Path(values.patch)
    if is_hook_patch(path):
        from lce.patch.hook_text import describe_hook
        from lce.patch.hooks import HookPatch

        if values.html:
            raise LceError("--html: draws which weights change; this patch changes none")
        print(describe_hook(HookPatch.load(path), path.stat().st_size))
        return
    patch = _loaded(values)
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
    from lce.patch.record import NO_WEIGHTS, is_hook_patch

    if is_hook_patch(path):
        raise LceError(f"{path}: {NO_WEIGHTS}")
    return Patch.load(path, allow_non_finite)


def _written(patch: Any, path: str) -> None:
    print(f"{patch.count:,} changed weights, {Path(path).stat().st_size / 1024:,.0f} KiB, written to {path}")


def _option(help: str, type: Any = str, **more: Any) -> dict[str, Any]:
    return {"type": type, "help": help, **more}


MODEL = _option("folder or hub name of the model that the patch was made for")
NON_FINITE = {"--allow_non_finite": _option("take a patch with infinite values or NaN as it is", bool, default=False)}
READS = {"--patch": _option("patch file", required=True), **NON_FINITE}
WRITES = {"--out": _option("patch file to write", required=True)}
PREFER = _option(
    "whose value a weight gets if the two, made for one model, give it different ones; without it, that is an error",
    Literal["first", "second"] | None, default=None,
)  # fmt: skip

ACTIONS: dict[str, tuple[Callable[[Namespace], None], dict[str, dict[str, Any]]]] = {
    "diff": (diff, {
        "base": _option("folder or hub name of the model before the edit"),
        "edited": _option("folder or hub name of the model after the edit"),
        **WRITES,
        "--old_values": _option("keep the base's values, so that the patch can be reverted", bool, default=True),
        "--skip_unmatched": _option("leave out tensors that only one of the two models has", bool, default=False),
    }),
    "apply": (apply, {
        "model": MODEL, **READS, "--out": _option("folder to write; plain transformers loads it", required=True),
    }),
    "revert": (revert, {
        "model": _option("folder or hub name of the patched model"), **READS,
        "--out": _option("folder to write", required=True),
    }),
    "verify": (verify, {"model": _option("folder or hub name of a model"), **READS}),
    "inspect": (inspect, {
        "patch": _option("patch file"), "--html": _option("page to write, with a heat map", str | None, default=None),
        **NON_FINITE,
    }),
    "compose": (compose, {
        "first": _option("patch file"),
        "second": _option("patch file; made for the same model, or for the model with the first one applied"),
        **WRITES, "--prefer": PREFER, **NON_FINITE,
    }),
    "scale": (scale, {**READS, "--alpha": _option("new strength α", float, required=True), **WRITES}),
    "to-peft": (to_peft, {
        "model": MODEL, **READS, "--out": _option("folder to write the adapter to", required=True),
    }),
}  # fmt: skip
"""Per action, what does it and what it is told."""

ARGUMENTS = Arguments()


def patch(values: Namespace) -> None:
    """Make, apply, take back, combine or look at a patch: the few weights that an edit changed."""


def arguments_of(action: str) -> Arguments:
    """What an ``action`` can be told."""

    def add(parser: ArgumentParser) -> None:
        for argument, options in ACTIONS[action][1].items():
            parser.add_argument(argument, **options)

    return Arguments(own=add)
