"""What a process finds around itself: variables, the file ``.env``, its working folder, the homes of users."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from ml_pipeline.errors import SettingsError

__all__ = [
    "AMOUNT",
    "ENV_FILE",
    "LEVEL_NAMES",
    "absolute",
    "byte_count",
    "byte_words",
    "comma_separated",
    "expressions",
    "field_names",
    "folder_name",
    "is_exportable",
    "is_utf8",
    "level_rules",
    "named_variables",
    "variables_of_file",
]

ENV_FILE = ".env"
AMOUNT = re.compile(r"(?P<number>[0-9]{1,12}(\.[0-9]{1,6})?)\s*(?P<unit>[a-z]+)", re.ASCII)
"""A number and its unit, in small letters: ``100 mb``, ``1.5 hours``."""

LEVEL_NAMES = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12} | {
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_LOGGER_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_ASSIGNMENT = re.compile(r"""^\s*(?:export\s+)?(\w+)\s*=\s*['"]?([^'"\n]*)""", re.ASCII | re.MULTILINE)
_NO_LEVEL = "audit"  # whose every record is written


def variables_of_file() -> tuple[dict[str, str], dict[str, SettingsError]]:
    """Read ``.env`` in the working folder, as far as it can be read.

    Returns:
        Its variables, of which those without a value are unset; and what is wrong with it, by the place, such as
        ``.env line 3``. Of a line that is wrong the variables hold what can be told; see `is_utf8`.
    """
    try:
        if not Path(ENV_FILE).is_file():
            return {}, {}
        text = Path(ENV_FILE).read_text("utf-8", "surrogateescape")
    except OSError as unreadable:
        rule = ".env must be a readable text file in UTF-8"
        return {}, {ENV_FILE: SettingsError(rule, unreadable.strerror or "", "correct it or remove it")}
    sound, wrong = io.StringIO(), {}
    for binding in parse_stream(io.StringIO(text)):
        lines = binding.original.string
        number = binding.original.line + lines[: -len(lines.lstrip()) or None].count("\n")
        place, remedy = f"{ENV_FILE} line {number}", f"correct line {number}"
        if binding.error:  # dotenv itself would warn, and leave the setting out
            shown = re.sub("=.*", "=***", lines.strip(), flags=re.DOTALL)  # the value may be a secret
            wrong[place] = SettingsError("every line of .env must be NAME=value or a comment", shown, remedy)
            sound.writelines(f"{each[1]}={each[2]}\n" for each in _ASSIGNMENT.finditer(lines))
            continue
        if not is_utf8(lines):
            wrong[place] = SettingsError("every line of .env must be text in UTF-8", binding.key or "#", remedy)
        sound.write(lines)
    sound.seek(0)
    return {name: value for name, value in dotenv_values(stream=sound).items() if value}, wrong


def is_utf8(text: str) -> bool:
    """Say whether a text of ``.env`` was UTF-8 there; its other bytes were read as half a surrogate pair each."""
    return not any("\ud800" <= each <= "\udfff" for each in text)


def named_variables(from_file: Mapping[str, str]) -> dict[str, str]:
    """Join the variables of the file and of the environment.

    Args:
        from_file: What `variables_of_file` returned.

    Returns:
        Values by name in upper case. The environment wins, and an empty variable is unset.
    """
    merged = {name.upper(): value for name, value in from_file.items()}
    merged.update({name.upper(): value for name, value in os.environ.items() if value})
    return merged


def absolute(path: Path) -> Path:
    """Name a path from the root, without asking whether it exists.

    Args:
        path: Any path; ``~`` and ``~user`` stand for a home.

    Raises:
        ValueError: If that home is unknown, or the path is relative to a working folder that was removed.
    """
    try:
        return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - `Path.absolute` would keep ``..``
    except RuntimeError:
        raise ValueError("must begin with a home folder that exists, or without ~") from None
    except FileNotFoundError:
        raise ValueError("must be absolute, because the working folder is gone") from None


def folder_name() -> str:
    """Return the working folder's name, as one printable line; empty where there is none."""
    try:
        name = Path.cwd().name
    except FileNotFoundError:
        name = ""
    return "".join(each if each.isprintable() else "_" for each in name).strip()


def is_exportable(text: str) -> bool:
    """Say whether an environment variable can hold a text."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def field_names(value: object) -> object:
    """Split names at commas.

    Args:
        value: The text of a variable, or the names themselves.

    Raises:
        ValueError: If a name has no letter and no digit, and so would match nothing, or a comma.
    """
    names = _split(value, ",")
    for name in names if isinstance(names, tuple) else ():
        if "," in name or not re.search(r"[^\W_]", name):
            raise ValueError(f"must be names with a letter or digit, separated by commas, {name!r} is none")
    return names


def comma_separated(value: object) -> object:
    """Split a text at commas, and leave out what is empty.

    Args:
        value: The text of a variable, or the parts themselves.
    """
    return _split(value, ",")


def expressions(value: object) -> object:
    """Split regular expressions at line ends, since any other character may belong to one.

    Args:
        value: The text of a variable, or the expressions themselves.

    Raises:
        ValueError: If one of them is no regular expression, or Python would warn that it may not mean what it says.
    """
    patterns = _split(value, "\n")
    for pattern in patterns if isinstance(patterns, tuple) else ():
        if "\n" in pattern:
            raise ValueError(f"must be regular expressions of one line, {pattern!r} is none")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                re.compile(pattern)
        except (re.error, OverflowError, RecursionError, Warning) as wrong:
            raise ValueError(f"must be regular expressions, one a line, {pattern!r} is none ({wrong})") from None
    return patterns


def level_rules(value: object) -> object:
    """Split levels of channels and modules at commas, and write each as ``name=LEVEL``.

    Args:
        value: The text of a variable, or the levels themselves; a mapping from names to levels is as good.

    Raises:
        ValueError: If one of them has no name, or a level that there is not; the audit trail has none.
    """
    if isinstance(value, Mapping):
        value = [f"{name}={level}" for name, level in value.items()]
    rules = _split(value, ",")
    if not isinstance(rules, tuple):
        return rules
    read = []
    for rule in rules:
        name, _, level = (part.strip() for part in rule.partition("="))
        if not _LOGGER_NAME.fullmatch(name) or name == _NO_LEVEL or level.upper() not in LEVEL_NAMES:
            raise ValueError(f"must be levels like training=DEBUG,my.module=WARNING, {rule!r} is none")
        read.append(f"{name}={level.upper()}")
    return tuple(read)


def byte_words(value: object) -> object:
    """Read a size in words, such as ``100 MB``; what is none is left for others to judge.

    Args:
        value: The text of a variable, or the number itself.
    """
    size = byte_count(value.strip().lower()) if isinstance(value, str) else None
    return value if size is None else size


def byte_count(words: str) -> int | None:
    """Return how many bytes a number and its unit are, such as ``100 mb``; None if they say nothing of the kind."""
    amount = AMOUNT.fullmatch(words)
    if amount is None or amount["unit"] not in _BYTES:
        return None
    return int(float(amount["number"]) * _BYTES[amount["unit"]])


def _split(value: object, separator: str) -> object:
    parts = value.split(separator) if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        return value  # not for us to judge: pydantic says what is wrong with it
    return tuple(part.strip() for part in parts if part.strip())
