"""What ``.stack/`` remembers between commands: whose compose project this is, and a restore that is not finished.

A project's name is all that Compose goes by: in a second checkout under the same name, it would take the first one's
containers and volumes for its own. Containers tell which folder started them; of volumes only this memory tells.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ml_pipeline._platform import replace_durably
from stack.docker import COMPOSE_FILE, Compose, StackError, docker
from stack.files import STATE, writing

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_all_gone", "check_owner", "check_restored", "claim", "is_half_restored", "restoring"]

_PROJECT: Final = "project.json"
_RESTORING: Final = "restoring"
_ADOPT: Final = "STACK_ADOPT"
_LABEL: Final = "com.docker.compose.project"


@dataclass(frozen=True)
class _Memory:
    """What earlier runs of `make up` left.

    Attributes:
        names: The projects that were started from here, the last one at the end.
        folders: Where this folder was, the last place at the end.
    """

    names: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


def check_owner(compose: Compose) -> None:
    """Refuse to touch a project that was started from another folder.

    Args:
        compose: The project.

    Raises:
        StackError: If a container is of another folder that was not moved here, or there are volumes and nothing
            tells that they are this folder's; unless the environment's ``STACK_ADOPT`` names the project.
    """
    name, memory = compose.name(), _remembered(compose.root)
    if os.environ.get(_ADOPT) == name:
        return
    own = memory.names[-1] if memory.names and name not in memory.names else None
    rename = f"set COMPOSE_PROJECT_NAME={own} in .env" if own else "set another COMPOSE_PROJECT_NAME in .env"
    folders = _folders(name)
    foreign = [each for each in folders if not _is_ours(each, compose.root, memory)]
    if foreign:
        raise StackError(
            "a compose project must be used from the folder that started it",
            f"{name}: {foreign[0]}",
            f"{rename}, or go there; if that folder was moved to here, run this once with {_ADOPT}={name}",
        )
    volumes = _volumes(name)
    if volumes and not folders and name not in memory.names:
        raise StackError(
            "volumes must be known to be this folder's",
            _shown(volumes),
            f"{rename}; if they are this folder's all the same, run this once with {_ADOPT}={name}",
        )


def claim(compose: Compose) -> None:
    """Remember that the project is this folder's; to be called after `check_owner`.

    Args:
        compose: The project.

    Raises:
        StackError: If that cannot be written.
    """
    name, memory = compose.name(), _remembered(compose.root)
    here = str(compose.root.resolve())
    # Compose keeps a container that needs no change when its folder moves, with the old folder on it.
    folders = [each for each in (*memory.folders, *sorted(_folders(name))) if each != here]
    told = {
        "names": [*(each for each in memory.names if each != name), name],
        "folders": [*dict.fromkeys(folders), here],
    }
    with writing(compose.root):
        _write(compose.root / STATE / _PROJECT, json.dumps(told))


def check_all_gone(compose: Compose) -> None:
    """Refuse to forget a stack of which something is left.

    Args:
        compose: The project.

    Raises:
        StackError: If there are volumes, or containers of a project of another name that was started from here.
    """
    name, memory = compose.name(), _remembered(compose.root)
    volumes = _volumes(name)
    if volumes:
        raise StackError(
            "every volume must be removed before its passwords are",
            _shown(volumes),
            f"remove the containers that use it (docker ps --all --filter volume={volumes[0]}), "
            f"then docker volume rm {' '.join(volumes)}, and run make purge again",
        )
    for other in memory.names:
        if other != name and (_folders(other) or _volumes(other)):
            raise StackError(
                "every project that was started from here must be removed before its passwords are",
                other,
                f"set COMPOSE_PROJECT_NAME={other} in .env and run make purge again",
            )


def is_half_restored(root: Path) -> bool:
    """Tell whether a restore has begun to replace things, and has not ended.

    Args:
        root: The folder with the compose file.
    """
    return (root / STATE / _RESTORING).exists()


def check_restored(root: Path) -> None:
    """Refuse to use a stack that is half restored.

    Args:
        root: The folder with the compose file.

    Raises:
        StackError: If a restore has not ended.
    """
    if is_half_restored(root):
        archive = (root / STATE / _RESTORING).read_text("utf-8", "replace").strip()
        raise StackError(
            "a restore must be finished before the stack is used",
            archive,
            f"restore again: make restore FILE={archive}; or make purge, to begin with nothing",
        )


@contextmanager
def restoring(root: Path, archive: Path) -> Iterator[None]:
    """Remember, for as long as it lasts and where it does not end well, that things are being replaced.

    Args:
        root: The folder with the compose file.
        archive: The backup.
    """
    mark = root / STATE / _RESTORING
    _write(mark, f"{archive.absolute()}\n")
    yield
    mark.unlink(missing_ok=True)


def _remembered(root: Path) -> _Memory:
    """Read what is remembered; in a copy of a folder that is still there, it is the other one's and does not count."""
    try:
        told = json.loads((root / STATE / _PROJECT).read_text("utf-8"))
        memory = _Memory(tuple(map(str, told["names"])), tuple(map(str, told["folders"])))
        last = memory.folders[-1]
    except (OSError, ValueError, LookupError, TypeError):  # never started, or half removed: the engine tells the rest
        return _Memory()
    return memory if _same(last, root) or not _holds_a_stack(last) else _Memory()


def _is_ours(folder: str, root: Path, memory: _Memory) -> bool:
    return _same(folder, root) or (folder in memory.folders and not _holds_a_stack(folder))


def _same(folder: str, root: Path) -> bool:
    try:
        return Path(folder).samefile(root)  # whatever links lead there
    except OSError:
        return False


def _holds_a_stack(folder: str) -> bool:
    try:
        return (Path(folder) / COMPOSE_FILE).exists()
    except OSError:  # closed to us: somebody's
        return True


def _folders(name: str) -> set[str]:
    """Return the folders that a project's containers were started from."""
    wanted = f'{{{{.Label "{_LABEL}.working_dir"}}}}'
    said = docker("ps", "--all", "--filter", f"label={_LABEL}={name}", "--format", wanted)
    return set(filter(None, said.splitlines()))


def _volumes(name: str) -> list[str]:
    return sorted(docker("volume", "ls", "--quiet", "--filter", f"label={_LABEL}={name}").splitlines())


def _shown(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    content = text.encode()
    if not path.is_file() or path.read_bytes() != content:
        replace_durably(path, content)
