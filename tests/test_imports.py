"""Importing the package does nothing, and costs little."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import pytest

import ml_pipeline.config
from tests.processes import python_answer, run_python

HEAVY = (
    "numpy", "scipy", "sklearn", "pandas", "pyarrow", "pydantic", "pydantic_settings", "requests", "prometheus_client",
    "grafana_api", "psutil", "typer", "rich",
)  # fmt: skip

CONFIG_MODULES = sorted(f"ml_pipeline.config.{each.name}" for each in pkgutil.iter_modules(ml_pipeline.config.__path__))
PUBLIC_MODULES = [name for name in CONFIG_MODULES if "._" not in name]

WATCH = """
import importlib, json, logging, os, signal, sys, threading

FORBIDDEN = ("socket.", "subprocess.", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link",
             "os.truncate", "os.chmod", "os.fork", "os.exec", "os.posix_spawn", "os.system", "os.putenv", "os.chdir",
             "sqlite3.connect", "tempfile.", "shutil.", "pty.", "mmap.", "urllib.")
done, importing = [], ""

def watch(event, arguments):
    is_writing = event == "open" and (set(str(arguments[1] or "")) & set("wax+")
                 or int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if is_writing or event.startswith(FORBIDDEN):
        done.append([importing, event, repr(arguments)[:200]])

def start(thread, start=threading.Thread.start):  # not every version of Python tells the hook
    done.append([importing, "thread", repr(thread)])
    start(thread)

threading.Thread.start = start

def state():
    return {
        "threads": threading.active_count(),
        "root handlers": len(logging.getLogger().handlers),
        "root level": logging.getLogger().level,
        "signals": [repr(signal.getsignal(each)) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "environment": sorted(os.environ.items()),
        "hooks": [repr(sys.excepthook), repr(threading.excepthook), repr(sys.stdout), repr(sys.stderr)],
        "files": sorted(os.listdir()),
    }
"""


def test_the_package_loads_nothing_heavy() -> None:
    """A script that imports it and does something else starts as fast as without it."""
    code = f"import json, sys, ml_pipeline\nprint(json.dumps([each for each in {HEAVY} if each in sys.modules]))"
    assert python_answer(code) == []


@pytest.mark.parametrize("modules", [["ml_pipeline"], CONFIG_MODULES], ids=["package", "config"])
def test_an_import_does_nothing(modules: list[str]) -> None:
    """It writes no file, makes no folder, thread, socket or process, and changes nothing of the interpreter's."""
    code = WATCH + (
        "before = state()\n"
        "sys.addaudithook(watch)\n"
        "for importing in sys.argv[1:]:\n"
        "    importlib.import_module(importing)\n"
        "found, after = list(done), state()\n"
        "print(json.dumps([found, {key: [before[key], after[key]] for key in before if before[key] != after[key]}]))\n"
    )
    found, changed = python_answer(code, *modules, PYTHONDONTWRITEBYTECODE="1")
    assert found == []
    assert changed == {}
    assert list(Path.cwd().iterdir()) == []


def test_the_watch_sees_what_it_is_there_for() -> None:
    """A file, a folder, a thread, a socket and a process are each noticed."""
    code = WATCH + (
        "import pathlib, socket, subprocess\n"
        "sys.addaudithook(watch)\n"
        "pathlib.Path('file').write_text('x')\n"
        "os.mkdir('folder')\n"
        "threading.Thread(target=int).start()\n"
        "socket.socket().close()\n"
        "subprocess.run([sys.executable, '-c', ''])\n"
        "print(json.dumps(sorted({event for _, event, _ in done})))\n"
    )
    events = " ".join(python_answer(code))
    for event in ("open", "os.mkdir", "thread", "socket.", "subprocess."):
        assert event in events


def test_every_module_can_be_imported_first() -> None:
    """Whichever of them a user's script begins with."""
    code = (
        "import importlib, os, sys\n"
        "for name in sys.argv[1:]:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        importlib.import_module(name)\n"
        "        os._exit(0)\n"
        "    if os.waitpid(pid, 0)[1]:\n"
        "        sys.exit(f'{name} cannot be imported first')\n"
    )
    done = run_python(code, *PUBLIC_MODULES)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_one_inert_handler_is_added() -> None:
    """One object on the logger ``ml_pipeline``, which opens nothing until a record comes."""
    code = (
        "import importlib, json, logging, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "loggers = [logging.getLogger(), *(each for each in logging.Logger.manager.loggerDict.values()\n"
        "                                  if isinstance(each, logging.Logger))]\n"
        "print(json.dumps({each.name: len(each.handlers) for each in loggers\n"
        "                  if each.handlers and each.name.startswith(('root', 'ml_pipeline'))}))\n"
    )
    assert python_answer(code, *CONFIG_MODULES) == {"ml_pipeline": 1}
    assert list(Path.cwd().iterdir()) == []
