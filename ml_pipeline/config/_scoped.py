"""A measuring tool as a decorator: each call of a function, or of a coroutine function, in a ``with`` of its own."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

__all__ = ["is_generator", "scoped"]

P = ParamSpec("P")
R = TypeVar("R")


def scoped(function: Callable[P, R], scope: Callable[[], AbstractContextManager[object]]) -> Callable[P, R]:
    """Wrap a function so that each of its calls runs inside a new scope.

    Args:
        function: A function, or a coroutine function, which stays one.
        scope: Makes the scope of one call.

    Returns:
        The function, with its name, signature and documentation.
    """
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
            with scope():
                return await function(*args, **kwargs)

        return cast("Callable[P, R]", awaited)

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with scope():
            return function(*args, **kwargs)

    return called


def is_generator(function: object) -> bool:
    """Say whether a call of *function* does none of its work: it makes a generator, which works when it is iterated."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
