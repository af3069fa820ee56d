from __future__ import annotations

from pathlib import Path

import pytest

from lce.foundations.errors import LceError
from lce.foundations.locks import held


def test_a_lock_is_held_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hold() -> None:
        with held(tmp_path / "lock", "somebody is at work"):
            pass

    monkeypatch.setattr("lce.foundations.locks.PATIENCE", 0.1)
    with held(tmp_path / "lock", "nobody was"), pytest.raises(LceError, match="somebody is at work"):
        hold()
    hold()
    (tmp_path / "file").touch()
    with pytest.raises(LceError, match="file: cannot be written"), held(tmp_path / "file/lock", "nobody is"):
        pass
