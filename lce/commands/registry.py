"""All commands by name: what each does, and what it can be told."""

from lce.commands import data, edit, evaluate, localize, patch, pretrain, report, sweep, train
from lce.commands.arguments import Arguments, Command

COMMANDS: dict[str, tuple[Command, Arguments]] = {
    name: (getattr(module, name), module.ARGUMENTS)
    for module in (data, pretrain, train, localize, edit, evaluate, sweep, report, patch)
    for name in [module.__name__.rpartition(".")[2]]
}
