"""Is this pipeline's observability in working order? Named checks, each with a status and a reason.

A check looks and leaves nothing behind: no file, no folder, no store that was not there before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from ml_pipeline import _runtime

__all__ = ["Check", "Health", "HealthCheck", "HealthChecks", "Status", "worst"]

Status = Literal["ok", "degraded", "failing"]
_STATUSES: Final[tuple[Status, ...]] = get_args(Status)

Check: TypeAlias = Callable[[], tuple[Status, str]]
"""Returns a status and one sentence on it; one that raises is failing. It must come back by itself."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """What one check found.

    Attributes:
        name: Of the check.
        status: ``ok``; ``degraded`` where something is lost or soon will be; ``failing`` where it does not work.
        reason: One sentence for a person.
    """

    name: str
    status: Status
    reason: str


@dataclass(frozen=True, slots=True)
class Health:
    """What all checks found.

    Attributes:
        status: The worst of them.
        checks: Each of them, the built-in ones first.
    """

    status: Status
    checks: tuple[HealthCheck, ...]

    def __getitem__(self, name: str) -> HealthCheck:
        """Return the check of that name.

        Raises:
            KeyError: If there is none.
        """
        return {check.name: check for check in self.checks}[name]


def worst(statuses: list[Status]) -> Status:
    """Return the worst of several statuses; ``ok`` where there are none."""
    return max(statuses, key=_STATUSES.index, default="ok")


class HealthChecks:
    """Runs named checks, each on its own: one that raises is failing, and the others are still run.

    Thread-safe.

    Args:
        checks: The checks to begin with, by name.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)

    def register(self, name: str, check: Check) -> None:
        """Have *check* run with the others from now on.

        Args:
            name: What it is called in the result; a check of that name is replaced.
            check: Returns a status and a reason, such as ``("degraded", "2 of 4 GPUs answer")``, quickly.
        """
        self._checks = {**self._checks, name: check}

    def unregister(self, name: str) -> None:
        """Leave a check out from now on; a name that is not there is left alone."""
        self._checks = {other: check for other, check in self._checks.items() if other != name}

    def __call__(self) -> Health:
        """Run every check now.

        Returns:
            What they found. Nothing is raised, whatever happens in a check, and nothing is left behind.
        """
        found = tuple(_run(name, check) for name, check in self._checks.items())
        return Health(worst([check.status for check in found]), found)


def _run(name: str, check: Check) -> HealthCheck:
    found, error = _runtime.attempt(_judge, name, check)
    if found is not None:
        return found
    text, _ = _runtime.attempt(str, error)
    return HealthCheck(name, "failing", f"{type(error).__name__}: {' '.join((text or '').split())}")


def _judge(name: str, check: Check) -> HealthCheck:
    match check():
        case (status, str(reason)) if status in _STATUSES:
            return HealthCheck(name, status, reason)
        case other:
            raise TypeError(f"a check must return a status of {', '.join(_STATUSES)} and a reason (got {other!r})")
