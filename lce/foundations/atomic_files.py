"""Writing files so that a kill at any moment leaves either the old state or the new one, never half of it.

What is being written lies beside its target under a name that no other target and no other process has, and is renamed
when it is complete. A lock file beside it, locked while the writer lives, distinguishes what is being written from what
a killed process left behind, across containers too and, where the file system shares its locks, across hosts. A write
that fails leaves nothing, and raises one LceError that says why.
"""

import errno
import fcntl
import hashlib
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

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
ACCESS_ERRORS = {errno.EIO, errno.EACCES, errno.EPERM}
ABANDONED_AFTER = 24 * 3600
"""Age at which another host's unlocked leftovers are removed [s]: some file systems keep locks to each host."""


@contextmanager
def replaced_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block succeeds, rename it to ``path``.

    Raises:
        LceError: it cannot be written, for example because the disk is full.
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
    """``path``, or what it leads to if it is a link."""
    with suppress(OSError):  # a name that is too long, which is reported later
        if Path(path).is_symlink():
            return Path(path).resolve()
    return Path(path)


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, int]]:
    """A name beside ``path`` with nothing there before and after the block, and the mode that new files have.

    Whatever killed writers of ``path`` left there is removed; so are, if the block fails, the folders made for it.
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
    """``error`` with the name ``path`` in the place of the ``temporary`` one."""
    return LceError(str(error).replace(str(temporary), str(path)))


def _key(path: Path) -> str:
    """The part of temporary names that identifies their target.

    A file within a file that is being written, whose ``path`` is a temporary name itself, has the same target.
    """
    temporary = re.fullmatch(r"\.lce-([0-9a-f]{16})-.*\.tmp", path.name)
    return temporary[1] if temporary else hashlib.sha256(path.name.encode()).hexdigest()[:16]


def _host() -> str:
    return re.sub(r"\W", "", platform.node())[:32]


@contextmanager
def _locked_name(folder: Path, key: str) -> Iterator[tuple[Path, int]]:
    """A name that no other process has, with a lock held beside it for the block, and the mode of new files."""
    while True:
        temporary = folder / f".lce-{key}-{_host()}-{os.getpid()}-{secrets.token_hex(8)}.tmp"
        lock = temporary.with_suffix(".lock")
        descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        try:
            if not _lock(descriptor) or not _is_at(descriptor, lock):
                continue  # another process took it for abandoned between the two calls
            yield temporary, os.fstat(descriptor).st_mode & 0o777
            return
        finally:
            lock.unlink(missing_ok=True)
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether the lock was free. A file system without locks counts as free: the names differ by process anyway."""
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
    """Raises an LceError for a full disk or the like, in a block in which libraries write into ``folder``."""
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
    """The failed write that ``error`` is, or that led to it through the exceptions of libraries; None if none did.

    A full disk counts anywhere in the chain of exceptions, missing rights and the like only as a declared cause.
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
        reason += f": {error.filename}"  # a file that was read for it, perhaps
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
