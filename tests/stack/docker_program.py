"""A stand-in for the ``docker`` program, for what no test machine has: no Compose, an engine too old, a daemon asleep.

It is an executable on a ``PATH`` of its own. It knows no Docker: it gives the answers it was told, and writes down what
it was asked. Like Compose it refuses a project file whose required variable is neither in the environment nor in ``.env``,
or whose required file is missing.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Answer", "DockerProgram", "healthy_engine"]

_PROGRAM = """\
#!{python} -SE
import json, os, sys, time
here = {here!r}
asked = sys.argv[1:]
with open(os.path.join(here, "asked.jsonl"), "a") as log:
    log.write(json.dumps(asked) + "\\n")
def known(name):
    written = open(".env").read().splitlines() if os.path.exists(".env") else []
    return name in os.environ or any(line.startswith(name + "=") for line in written)
if "--file" in asked and not known("STACK_LOG_GROUP"):
    sys.exit("required variable STACK_LOG_GROUP is missing a value: run 'make up' first")
if "--file" in asked and not os.path.exists(os.environ.get("STACK_MARK", ".stack/run-make-up-first")):
    sys.exit("env file .stack/run-make-up-first not found")
before = [json.loads(line) for line in open(os.path.join(here, "asked.jsonl"))][:-1]
def came(words):
    return not words or any(all(word in each for word in words) for each in before)
for answer in json.load(open(os.path.join(here, "answers.json"))):
    if all(word in asked for word in answer["to"]) and came(answer["after"]):
        break
else:
    sys.exit("the stand-in was not told what to answer to " + " ".join(asked))
if answer["reads"]:
    with open(answer["reads"], "ab") as kept:
        kept.write(sys.stdin.buffer.read())
sys.stdout.write(answer["out"].replace("$PWD", os.getcwd()))
sys.stderr.write(answer["err"])
sys.stdout.flush()
time.sleep(answer["seconds"])
sys.exit(answer["code"])
"""


@dataclass(frozen=True)
class Answer:
    """What is answered where every word of *to* is among the arguments; the first that fits wins.

    Attributes:
        to: The words; none for whatever is asked.
        out: What is printed on stdout; $PWD stands for the folder it is asked in.
        err: What is printed on stderr.
        code: The exit code.
        seconds: How long it hangs before it ends.
        reads: A file that stdin is appended to; empty: stdin is not read.
        after: Words that must all have been in one earlier call; none: it is answered at once.
    """

    to: tuple[str, ...] = ()
    out: str = ""
    err: str = ""
    code: int = 0
    seconds: float = 0.0
    reads: str = ""
    after: tuple[str, ...] = ()


@dataclass
class DockerProgram:
    """The stand-in.

    Attributes:
        folder: Where it stands; the only folder on the ``PATH`` of those who use it.
        answers: What it answers, first to last.
    """

    folder: Path
    answers: list[Answer] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Write it, and make it the only program on the ``PATH``."""
        self.folder.mkdir(exist_ok=True)
        program = self.folder / "docker"
        program.write_text(_PROGRAM.format(python=sys.executable, here=str(self.folder)))
        program.chmod(0o755)
        self.tell()
        monkeypatch.setenv("PATH", str(self.folder))

    def tell(self, *first: Answer) -> None:
        """Change what it answers: *first* goes before what it was told earlier."""
        self.answers = [*first, *self.answers]
        (self.folder / "answers.json").write_text(json.dumps([asdict(each) for each in self.answers]))

    def asked(self) -> list[list[str]]:
        """Return the arguments of every call, in order."""
        log = self.folder / "asked.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def compose_commands(self) -> list[list[str]]:
        """Return what Compose was asked to do: the calls without ``--file`` and ``--profile``."""
        return [each[5:] if "--profile" in each else each[3:] for each in map(_without_docker, self.asked()) if each]


def healthy_engine(services: list[str], volumes: dict[str, str], containers: list[dict[str, Any]]) -> list[Answer]:
    """Return the answers of a Docker that has all that the stack needs, and does what it is asked.

    Args:
        services: Of the compose file.
        volumes: Their names on the engine by their names in the compose file; all of them exist.
        containers: What ``docker compose ps`` tells; they were started from the folder that Docker is asked in.
    """
    configuration = {
        "name": "p",
        "services": {"pipeline": {"image": "pipeline:local"}},
        "volumes": {key: {"name": name} for key, name in volumes.items()},
    }
    return [
        Answer(("--version",), "Docker version 29.0.0\n"),
        Answer(("compose", "version", "--short"), "2.40.3\n"),
        Answer(("info", "{{.ServerVersion}}"), "29.0.0\n"),
        Answer(("info", "{{.MemTotal}}"), f"{8 * 1024**3}\n"),
        Answer(("compose", "ps", "json"), "".join(json.dumps(each) + "\n" for each in containers)),
        Answer(("compose", "config", "--services"), "\n".join(services) + "\n"),
        Answer(("compose", "config", "json"), json.dumps(configuration)),
        Answer(
            ("run", "df -Pk /volume"),
            "Filesystem 1024-blocks Used Available Capacity Mounted on\nx 9 1 8000000 2% /volume\n",
        ),
        Answer(("ps", "--filter"), after=("down",)),
        Answer(("ps", "--filter"), "$PWD\n" * len(containers)),
        Answer(("volume", "ls"), after=("down", "--volumes")),
        Answer(("volume", "ls"), "\n".join(volumes.values()) + "\n"),
        Answer(("volume", "create")),
        Answer(("compose",)),
    ]


def _without_docker(arguments: list[str]) -> list[str]:
    return arguments if arguments[:2] == ["compose", "--file"] else []
