"""Where a model comes from: a folder, or a download of the Hugging Face hub, and what identifies it.

The hub is asked once for each model and process, and briefly: whoever has the model already can work without it.
Everything else is then read from the folder.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any, Literal, TypeVar

from lce.foundations.errors import LceError
from lce.foundations.paths import shipped

log = logging.getLogger(__name__)
Result = TypeVar("Result")

PATIENCE = 5.0
"""Time that the hub has to answer before it counts as out of reach [s]."""
PATTERNS = ["*.json", "*.jinja", "*.md", "*.model", "*.py", "*.safetensors", "*.txt"]
"""Files that are taken from the hub: nothing that has to be unpickled."""
OTHER_FORMATS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".onnx_data", ".gguf", ".ot", ".pkl")
"""Ends of the names of files that hold weights in another format than safetensors."""
READ = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "*.py", "*.model", "tokenizer.json",
    "tokenizer_config.json", "preprocessor_config.json", "processor_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
)  # fmt: skip
"""Files of weights, configuration, code and tokenizer: what loading a model reads."""


@dataclass(frozen=True)
class ModelIdentity:
    """Which model it was: SHA-256 over its files, and its commit where its name is one of the hub."""

    fingerprint: str
    commit: str | None


def identity(name: str | Path) -> ModelIdentity:
    """What identifies the model ``name``: the names and contents of all files that loading it reads.

    Raises:
        LceError: there is no such model, or a file of it cannot be read.
    """
    folder = resolve(name)
    lines = []
    try:
        for path in sorted({path for pattern in READ for path in folder.glob(pattern) if path.is_file()}):
            with path.open("rb") as content:
                lines.append(f"{path.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n")
    except OSError as error:
        raise LceError(f"{error.filename}: cannot be read ({error.strerror})") from error
    commit = None if folder == shipped(name) else folder.name
    return ModelIdentity(hashlib.sha256("".join(lines).encode()).hexdigest(), commit)


def resolve(name: str | Path, **options: Any) -> Path:
    """The local folder of a checkpoint: ``name`` itself, one that lce ships, or a download of the hub model so named.

    If the hub is out of reach, it is the copy of the model's latest commit in the cache.

    Args:
        options: cache_dir, local_files_only, revision and token, as in transformers.

    Raises:
        LceError: there is neither such a folder nor such a model, or the model cannot be downloaded.
    """
    try:
        if (folder := shipped(name)).is_dir():
            return folder
    except OSError as error:
        raise LceError(f"model {str(name)[:80]}: cannot be looked up ({error.strerror})") from error
    return _of_hub(str(name), **options)


def resolve_part(name: str | Path, files: tuple[str, ...]) -> Path:
    """The local folder that holds ``files``: ``name`` itself, or a folder of a repository on the hub.

    Of the repository, named OWNER/REPOSITORY/FOLDER, nothing else is downloaded.

    Raises:
        LceError: there is no such folder, or it lacks one of the files.
    """
    try:
        folder = shipped(name)
        is_here = folder.is_dir()
    except OSError as error:
        raise LceError(f"{str(name)[:80]}: cannot be looked up ({error.strerror})") from error
    if not is_here:
        owner, repository, *inner = [*str(name).rstrip("/").split("/"), ""]
        if not owner or not repository:
            raise LceError(f"{name}: no such folder, and no OWNER/REPOSITORY/FOLDER of the hub")
        folder = _part_of_hub(f"{owner}/{repository}", "/".join(inner[:-1]), files)
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise LceError(f"{name}: holds no {' and no '.join(missing)}")
    return folder


@cache
def _part_of_hub(repository: str, inner: str, files: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    wanted = [f"{inner}/{file}" if inner else file for file in files]
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted)) / inner
    except Exception as error:  # as in _of_hub
        raise LceError(
            f"{repository}/{inner}: no such folder, and the hub does not give it ({_reason(error)})"
        ) from error


class OutOfReach(Exception):
    """The hub gives no answer, or none that says anything about what was asked; the text says why."""


def asked(kind: Literal["model", "data set"], name: str, revision: str | None, token: str | bool | None = None) -> Any:
    """What the hub says of a model or data set, files and commit among it.

    Raises:
        LceError: it knows no such thing, or does not give it to this user.
        OutOfReach: it does not answer within `PATIENCE`, or is out of order.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    about = f"{kind} {name}: no such folder, "
    api = HfApi(token=token)
    ask: Callable[..., Any] = api.model_info if kind == "model" else api.dataset_info
    try:
        return _within(PATIENCE, lambda: ask(name, revision=revision, timeout=PATIENCE))
    except HFValidationError as error:
        raise LceError(f"{about}and no name that the hub could know") from error
    except GatedRepoError as error:
        raise LceError(
            f"{kind} {name}: is gated; accept its terms on the hub, and log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise LceError(f"{about}nor, for this user, such a {kind} on the hub") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status < 500 and status != 429:
            hint = "; if it is private, log in with `hf auth login`" if status in (401, 403) else ""
            raise LceError(f"{about}and the hub does not give it ({_reason(error)}){hint}") from error
        raise OutOfReach(f"the hub is out of order: {_reason(error)}") from error
    except Exception as error:  # the HTTP library has many, for names, addresses, proxies, certificates and time
        raise OutOfReach(f"the hub cannot be reached: {_reason(error)}") from error


@cache
def _of_hub(
    name: str,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    from huggingface_hub import constants, snapshot_download

    where: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "allow_patterns": PATTERNS}
    if local_files_only or constants.HF_HUB_OFFLINE:
        return _cached(name, "the hub is not to be asked", where)
    try:
        info = asked("model", name, revision, token)
    except OutOfReach as error:
        return _cached(name, str(error), where)
    names = [sibling.rfilename for sibling in info.siblings or []]
    if not any(file.endswith(".safetensors") for file in names):
        raise LceError(f"model {name}: the hub has no safetensors of it; lce works on nothing else{to_convert(names)}")
    copy = _copy(name, where)
    if copy and copy.name == info.sha and all((copy / file).exists() for file in _wanted(names)):
        return copy
    try:
        return Path(snapshot_download(name, token=token, **where))
    except Exception as error:  # as above; whatever stops a download, what came of it is not used
        raise LceError(f"model {name}: cannot be downloaded from the hub ({_reason(error)})") from error


def _cached(name: str, why: str, where: dict[str, Any]) -> Path:
    """The copy in the cache; LceError if there is none, or only a part of it."""
    copy = _copy(name, where)
    if copy is None:
        raise LceError(f"model {name}: no such folder, no whole copy of it in the cache, and {why}")
    log.info("%s: works offline, from the cached copy of commit %s (%s)", name, copy.name, why)
    return copy


def _copy(name: str, where: dict[str, Any]) -> Path | None:
    """The whole of the model as the cache has it, if it does."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True, **where))
    except (OSError, ValueError):
        return None


def _wanted(names: list[str]) -> list[str]:
    from huggingface_hub.utils import filter_repo_objects

    return list(filter_repo_objects(names, allow_patterns=PATTERNS))


def to_convert(names: Iterable[str]) -> str:
    """What to do about a model whose files of these ``names`` hold weights, but none in safetensors; or nothing."""
    others = sorted(name for name in names if name.endswith(OTHER_FORMATS))
    return f", and does not open {others[0]}: convert the model to safetensors first" if others else ""


def _within(seconds: float, call: Callable[[], Result]) -> Result:
    """What ``call`` returns or raises; TimeoutError if that takes longer.

    The HTTP library's own timeout holds for each address of a host and each chunk of an answer, and not for looking up
    the name. What never returns is left behind in its thread.
    """
    found: list[Any] = []

    def run() -> None:
        try:
            found.extend((True, call()))
        except Exception as error:
            found.extend((False, error))

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise TimeoutError(f"no answer within {seconds:g} s")
    if not found[0]:
        raise found[1]
    result: Result = found[1]
    return result


def _reason(error: Exception) -> str:
    """The first line of what ``error`` says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
