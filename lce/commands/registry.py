"""All commands by name: what each does, and what it can be told."""

from lce.commands import (
    data,
    directions,
    edit,
    evaluate,
    features,
    heads,
    localize,
    patch,
    pretrain,
    pretrain_clip,
    pretrain_projector,
    report,
    sweep,
    train,
    train_sae,
)  # fmt: skip
from lce.commands.arguments import Arguments, Command

COMMANDS: dict[str, tuple[Command, Arguments]] = {
    "data": (data.data, data.ARGUMENTS),
    "pretrain": (pretrain.pretrain, pretrain.ARGUMENTS),
    "pretrain-clip": (pretrain_clip.pretrain_clip, pretrain_clip.ARGUMENTS),
    "pretrain-projector": (pretrain_projector.pretrain_projector, pretrain_projector.ARGUMENTS),
    "train": (train.train, train.ARGUMENTS),
    "train-sae": (train_sae.train_sae, train_sae.ARGUMENTS),
    "localize": (localize.localize, localize.ARGUMENTS),
    "localize features": (features.localize_features, features.ARGUMENTS),
    "localize heads": (heads.localize_heads, heads.ARGUMENTS),
    "localize directions": (directions.localize_directions, directions.ARGUMENTS),
    "edit": (edit.edit, edit.ARGUMENTS),
    "edit features": (features.edit_features, features.ARGUMENTS),
    "edit heads": (heads.edit_heads, heads.ARGUMENTS),
    "edit directions": (directions.edit_directions, directions.ARGUMENTS),
    "evaluate": (evaluate.evaluate, evaluate.ARGUMENTS),
    "sweep": (sweep.sweep, sweep.ARGUMENTS),
    "report": (report.report, report.ARGUMENTS),
    "patch": (patch.patch, patch.ARGUMENTS),
}
"""A second word names another unit than weights."""
