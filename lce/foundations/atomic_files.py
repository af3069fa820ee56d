"""Writing files so that a kill at any moment leaves either the old state or the new one, never half of it.

What is being written lies beside its target under a name that no other target and no other process has, and is renamed
when it is whole. A lock beside it, held while the writer lives, tells what is being written from what a killed process
left behind; locks work across the containers and, on file systems that share them, the hosts that see the folder.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from lce.foundations.errors import LceError

log = logging.getLogger(__name__)

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
ACCESS_ERRORS = {errno.EIO, errno.EACCES, errno.EPERM}
ABANDONED_AFTER = 24 * 3600
"""Seconds after which another host's unlocked leavings go: some file systems keep each host's locks to itself."""


@contextmanager
def replaced_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block succeeds, rename it to ``path``.

    Raises:
        LceError: it cannot be written, because the disk is full, say.
    """
    path = _target(path)
    with _temporary(path) as (temporary, mode):
        yield temporary
        temporary.chmod(temporary.stat().st_mode | mode)
        temporary.replace(path)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; when the block succeeds, rename it to ``path``.

    Raises:
        LceError: ``path`` exists and is not an empty folder, or cannot be written.
    """
    path = _target(path)
    check_new(path)
    with _temporary(path) as (temporary, mode):
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file() and not file.is_symlink():
                file.chmod(file.stat().st_mode | mode)
        check_new(path)
        temporary.replace(path)  # on an empty folder, too


@contextmanager
def scratch_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` that is gone after the block; LceError if it cannot be written."""
    with _temporary(_target(path)) as (temporary, _):
        temporary.mkdir()
        yield temporary


def _target(path: str | Path) -> Path:
    """What is written where ``path`` is a link: what it leads to."""
    with suppress(OSError):  # of names that are too long, which is said later
        if Path(path).is_symlink():
            return Path(path).resolve()
    return Path(path)


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, int]]:
    """A name beside ``path`` with nothing there before and after the block, and the mode that new files have.

    What killed writers of ``path`` left there is removed, and so are, if the block fails, the folders made for it.
    """
    if not path.name:
        raise LceError(f"{path}: names no file or folder to write")
    made: list[Path] = []
    temporary = path
    try:
        for parent in reversed(path.parents):
            if not parent.exists():
                parent.mkdir(exist_ok=True)
                made.append(parent)
        key = _key(path)
        _remove_abandoned(path.parent, key)
        with _locked_name(path.parent, key) as (temporary, mode):
            try:
                yield temporary, mode
            finally:
                _remove(temporary)
    except BaseException as error:
        for parent in reversed(made):
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError) or (isinstance(error, SafetensorError) and "os error" in str(error)):
            raise _named(cannot_write(path, error), temporary, path) from error
        if isinstance(error, LceError) and str(temporary) in str(error):
            raise _named(error, temporary, path) from error
        raise


def _named(error: LceError, temporary: Path, path: Path) -> LceError:
    """The same with the name of what was to be written."""
    return LceError(str(error).replace(str(temporary), str(path)))


def _key(path: Path) -> str:
    """What the temporary names for one target have in common, and those for another one have not.

    What is written on the way to a temporary name belongs to that one's target.
    """
    temporary = re.fullmatch(r"\.lce-([0-9a-f]{16})-.*\.tmp", path.name)
    return temporary[1] if temporary else hashlib.sha256(path.name.encode()).hexdigest()[:16]


def _host() -> str:
    return re.sub(r"\W", "", platform.node())[:32]


@contextmanager
def _locked_name(folder: Path, key: str) -> Iterator[tuple[Path, int]]:
    """A name that no other process has, beside which a lock is held for the block; and the mode of new files."""
    while True:
        temporary = folder / f".lce-{key}-{_host()}-{os.getpid()}-{secrets.token_hex(8)}.tmp"
        lock = temporary.with_suffix(".lock")
        descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        try:
            if not _lock(descriptor) or not _is_at(descriptor, lock):
                continue  # taken for abandoned, between the two calls, by a process that tidies up
            yield temporary, os.fstat(descriptor).st_mode & 0o777
            return
        finally:
            lock.unlink(missing_ok=True)
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether the lock could be had; where the file system has none, every process has its own name all the same."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _remove_abandoned(folder: Path, key: str) -> None:
    """Remove what writers of the target with this ``key`` left behind when they were killed."""
    for lock in folder.glob(f".lce-{key}-*.lock"):
        with suppress(OSError):
            descriptor = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_own_host = lock.name.removeprefix(f".lce-{key}-").startswith(f"{_host()}-")
                if _is_at(descriptor, lock) and (is_own_host or _age(lock) > ABANDONED_AFTER):
                    _remove(lock.with_suffix(".tmp"))
                    lock.unlink()
            finally:
                os.close(descriptor)


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def writing(folder: str | Path) -> Iterator[None]:
    """For a block in which libraries write into ``folder``: an LceError where the disk is full, and the like."""
    try:
        yield
    except LceError:
        raise
    except Exception as error:
        if cause := disk_error(error):
            reason = f"cannot be written ({cause.strerror}); the same command resumes when it can be"
            raise LceError(f"{folder}: {reason}") from error
        raise


def disk_error(error: BaseException | None) -> OSError | None:
    """The failed write that ``error`` is or that led to it, through whatever libraries made of it; None if none did.

    A full disk counts wherever it came up on the way; missing rights and the like only as the declared cause.
    """
    is_cause = True
    while error is not None:
        if isinstance(error, OSError) and error.errno in (ACCESS_ERRORS | DISK_ERRORS if is_cause else DISK_ERRORS):
            return error
        is_cause = error.__cause__ is not None
        error = error.__cause__ or error.__context__
    return None


def cannot_write(path: str | Path, error: Exception) -> LceError:
    reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename and str(path) not in str(error.filename):
        reason += f": {error.filename}"  # what was to be read for it, say
    return LceError(f"{str(path)[:1000]}: cannot be written ({reason}); nothing was left behind")


def check_new(path: str | Path) -> None:
    """Raises LceError if ``path`` exists and is not an empty folder."""
    path = Path(path)
    try:
        is_taken = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    except OSError as error:
        raise cannot_write(path, error) from error
    if is_taken:
        raise LceError(f"{path}: exists already; name a new folder or remove it first")
