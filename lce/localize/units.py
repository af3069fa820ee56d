"""What can be edited at all: the units of one model, by the sites at which they sit."""

from typing import Protocol


class Units(Protocol):
    """The units of one model, among which a localisation chooses and a random baseline is drawn.

    Sites are named like parameters, with the layer's number in the middle, because layers and components are told from
    these names (`lce.localize.components`).
    """

    @property
    def kind(self) -> str:
        """What a unit is, in one word: a weight, say."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Site → the shape of its units; a unit is a flat position in it."""

    @property
    def fingerprint(self) -> str:
        """What identifies the model, and whatever else defines the units."""
