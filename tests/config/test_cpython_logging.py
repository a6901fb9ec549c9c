"""CPython's own tests of ``logging``, run with our logger class in the place of ``logging.Logger``.

They come with the interpreter (``test.test_logging``), or with a package of the system, and are run in a process of
their own, in two ways: loggers are made of our class, or made of the standard one and given ours, as those are that
someone made before us.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

_TRANSPORT = "how a handler sends what it was given, over sockets of its own"
_FILES = "how a handler writes what it was given, and when it begins a new file"
LEFT_OUT = {
    "MiscTestCase": "compares logging.__all__ with the classes that were defined in that module, of which ours is none",
    "NTEventLogHandlerTest": _TRANSPORT,
    "SMTPHandlerTest": _TRANSPORT,
    "HTTPHandlerTest": _TRANSPORT,
    "SocketHandlerTest": _TRANSPORT,
    "UnixSocketHandlerTest": _TRANSPORT,
    "DatagramHandlerTest": _TRANSPORT,
    "UnixDatagramHandlerTest": _TRANSPORT,
    "SysLogHandlerTest": _TRANSPORT,
    "UnixSysLogHandlerTest": _TRANSPORT,
    "IPv6SysLogHandlerTest": _TRANSPORT,
    "HandlerTest": _FILES,
    "FileHandlerTest": _FILES,
    "RotatingFileHandlerTest": _FILES,
    "TimedRotatingFileHandlerTest": _FILES,
}
"""What is not run, and why: no logger's class has a part in it."""

CENTRAL = {
    "BasicConfigTest",
    "BasicFilterTest",
    "BuiltinLevelsTest",
    "ChildLoggerTest",
    "ConfigDictTest",
    "ConfigFileTest",
    "CustomLevelsAndFiltersTest",
    "EncodingTest",
    "ExceptionTest",
    "LastResortTest",
    "LogRecordFactoryTest",
    "LogRecordTest",
    "LoggerAdapterTest",
    "LoggerTest",
    "ManagerTest",
    "MemoryTest",
    "ModuleLevelMiscTest",
    "QueueHandlerTest",
    "WarningsTest",
}
"""What a logger's class has most to do with; a newer Python's additions are run too."""

_PROGRAM = """
import io, json, logging, sys, unittest
from test import test_logging
from ml_pipeline.config.logging_config import DirectLogger

way, left_out = sys.argv[1], set(sys.argv[2].split(","))
if way == "made":
    logging.setLoggerClass(DirectLogger)
    logging.Logger = DirectLogger
else:
    make = logging.Logger.__init__
    def make_and_assign(self, *args, **options):
        make(self, *args, **options)
        if type(self) is logging.Logger:
            self.__class__ = DirectLogger
    logging.Logger.__init__ = make_and_assign
    logging.root.__class__ = type("Root", (DirectLogger, type(logging.root)), {})
assert type(logging.getLogger("probe")) is type(logging.Logger("probe")) is DirectLogger

ran, failed = {}, []
for name, case in list(vars(test_logging).items()):
    if isinstance(case, type) and issubclass(case, unittest.TestCase) and name not in left_out:
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
        result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
        ran[name] = result.testsRun
        failed += [f"{test.id()}: {trace}" for test, trace in (*result.failures, *result.errors)]
print(json.dumps({"ran": ran, "failed": failed}), file=sys.__stdout__)
"""


def _is_installed() -> bool:
    try:
        return find_spec("test.test_logging") is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.skipif(
    not _is_installed(), reason="CPython's own tests are not installed; on Debian they are libpython3-testsuite"
)
@pytest.mark.parametrize("way", ["made", "assigned"])
def test_our_loggers_pass_the_tests_of_cpython(way: str) -> None:
    """Whatever its tests ask of a logger holds for one of ours."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, way, ",".join(LEFT_OUT)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ML_PIPELINE_LOG_CONSOLE": "off"},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert not told["failed"], "\n".join(told["failed"])
    assert {name for name, count in told["ran"].items() if count} >= CENTRAL
