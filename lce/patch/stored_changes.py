"""The changes that a patch file holds, read parameter by parameter."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from lce.foundations.errors import LceError
from lce.patch.record import Parameter, is_finite
from lce.storage.arrays import Array
from lce.storage.changes import Change
from lce.storage.position_codec import decode
from lce.storage.safetensors_file import Entry, read_checked


class StoredChanges(Mapping[str, Change[Array]]):
    """The changes of a patch file, each read and checked when it is asked for.

    Attributes:
        path: the file.
        parameters: what the file says of each parameter that changes.
        parts: "new", and "old" and "full" where the file has them.
    """

    def __init__(
        self,
        path: str | Path,
        entries: dict[str, Entry],
        parameters: dict[str, Parameter],
        digests: dict[str, str],
        allow_non_finite: bool,
    ) -> None:
        self.path, self.parameters = Path(path), parameters
        self._entries, self._digests, self._allow_non_finite = entries, digests, allow_non_finite
        self.parts = {name.partition("/")[0] for name in entries} - {"steps"} | {"new"}
        expected = {f"{part}/{name}" for name in parameters for part in {*self.parts, "steps"}}
        different = sorted(expected ^ set(entries)) or sorted(self.parts - {"new", "old", "full"})
        if different:
            raise LceError(f"its tensors are not those of its metadata ({', '.join(map(repr, different[:3]))})")

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes that the file holds of each parameter."""
        parts = {*self.parts, "steps"}
        return {name: sum(self._entries[f"{part}/{name}"].nbytes for part in parts) for name in self}

    def __getitem__(self, name: str) -> Change[Array]:
        about = self.parameters[name]
        where = f"{self.path}: {name}"
        for part in self.parts:
            entry = self._entries[f"{part}/{name}"]
            if entry.code != about.dtype or entry.shape != (about.count,):
                expected, found = f"{about.dtype} ({about.count},)", f"{entry.code} {entry.shape}"
                raise LceError(f"{where}: expected {expected} as {part} values, found {found}")
        steps = read_checked(self._entries[f"steps/{name}"], self._digests)
        indices = decode(steps, about.count, about.size, where)
        values = {part: read_checked(self._entries[f"{part}/{name}"], self._digests) for part in self.parts}
        if not self._allow_non_finite and not all(is_finite(part, about.dtype) for part in values.values()):
            raise LceError(f"{where}: holds a value that is not finite")
        return Change(indices, values["new"], about.shape, values.get("old"), values.get("full"))

    def __iter__(self) -> Iterator[str]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)
