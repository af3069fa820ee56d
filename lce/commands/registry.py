"""All commands by name: what each does, and what it can be told."""

from lce.commands import data, edit, evaluate, features, localize, patch, pretrain, report, sweep, train, train_sae
from lce.commands.arguments import Arguments, Command

COMMANDS: dict[str, tuple[Command, Arguments]] = {
    name.replace("_", "-"): (getattr(module, name), module.ARGUMENTS)
    for module in (data, pretrain, train, train_sae, localize, edit, evaluate, sweep, report, patch)
    for name in [module.__name__.rpartition(".")[2]]
}

OF_UNITS: dict[tuple[str, str], tuple[Command, Arguments]] = {
    ("localize", "features"): (features.localize_features, features.LOCALIZE),
    ("edit", "features"): (features.edit_features, features.EDIT),
}
"""By command and the unit that follows it: what it does with other units than weights."""
