"""Everything an experiment can be told, with defaults; configuration files say what differs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lce.data.cda import Variant
from lce.data.prepare import DataSettings
from lce.metrics.suite import EvaluationSettings
from lce.training import OptimisationSettings


@dataclass
class Settings:
    """One experiment: its data, how its subnetworks are trained, and how the target is edited."""

    experiment: str = "runs/quickstart"
    """Folder for all that the experiment makes."""
    base: str = "checkpoints/lce-bert-mini"
    """Pretrained model θ0: a folder, or a name on the Hugging Face hub."""
    seed: int = 0
    """Seed of order, masking, dropout and random selections."""
    variant: Variant = "stereotypical"
    """Variant of the corpus that a model is trained on."""
    sparsities: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.4])
    """Sparsities to prune to, one round each after the dense one; a `sparsity` not among them takes a way of its own
    over those below it [share of prunable weights]."""
    data: DataSettings = field(default_factory=DataSettings)
    """Text to train and evaluate on."""
    train: OptimisationSettings = field(default_factory=OptimisationSettings)
    """How each subnetwork is trained."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """How bias is measured."""
    target: str = "stereotypical"
    """Model to edit: a variant of this run, or the folder of a subnetwork."""
    reference: str = "anti-stereotypical"
    """Model to compare the target with: a variant of this run, or the folder of a subnetwork."""
    sparsity: float = 0.3
    """Sparsity of the target and reference taken from this run [share of prunable weights]."""
    localization: Literal["mask", "value"] = "mask"
    """mask: weights kept in exactly one of the two; value: the k that differ most among those kept in both."""
    k: int | float = 0.1
    """Size of a value-based selection: a share in (0, 1], or a whole number of weights."""
    selection: str | None = None
    """Selection file, as `lce localize` writes it, to use instead of localising anew."""
    strategy: Literal["interpolation", "extrapolation", "pruning", "mask-switch"] = "extrapolation"
    """Edit. Interpolation and extrapolation are one formula, θ_t + α (θ_r − θ_t)."""
    alpha: list[float] = field(default_factory=lambda: [2.0])
    """Strengths α of the edit, any real numbers; 1 puts the reference's values in, 0 is the unedited target."""
    uninformed_draws: int = 5
    """Random selections of the same size that the edit is compared with; CrowS-Pairs (original), which takes longer
    than all else together, is measured on the first one."""
    output: str | None = None
    """Folder or file for the result; by default a name made from the settings, inside the run."""
