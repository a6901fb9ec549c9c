"""One case of `logging_cost`, in a process of its own: ``python logging_program.py CASE RECORDS``."""

from __future__ import annotations

import datetime
import json
import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Run = Callable[[int], object]

PROCESSES = 4

IDS = {"operation": "train", "operation_id": "op-1", "run_id": "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f5a6", "user_id": "u1"}
FIELDS = {"model": "alz", "version": "1.2.0", "rows": 1, "score": 0.93, "ok": True, "source": "adni"}


def without_site() -> None:
    """Turn off what the standard library's documentation names as its switches for speed."""
    logging._srcfile = None  # type: ignore[attr-defined]
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def ours(mode: str = "write-through", *, site: bool = False, channel: str = "ml_pipeline") -> logging.Logger:
    """Our logger, with everything on or plain."""
    os.environ["ML_PIPELINE_LOG_MODE"] = mode
    os.environ["ML_PIPELINE_LOG_MAX_BYTES"] = "1000000000"  # never reached; an integer that is as quick as the default
    from ml_pipeline.config import _context
    from ml_pipeline.config.logging_config import get_logger

    if site:
        _context.restore(IDS)
    else:
        without_site()
    return get_logger(channel, "bench")


def by_extra(call: Callable[..., object], **more: object) -> Run:
    """Log six fields, and more, as ``extra=``."""

    def run(records: int) -> None:
        for i in range(records):
            call(
                "request handled",
                extra={"model": "alz", "version": "1.2.0", "rows": i, "score": 0.93, "ok": True, "source": "adni"},
            )

    def run_with_more(records: int) -> None:
        for _ in range(records):
            call("request handled", extra={**FIELDS, **more})

    return run_with_more if more else run


def by_name(call: Callable[..., object]) -> Run:
    """Log six fields as arguments of their names."""

    def run(records: int) -> None:
        for i in range(records):
            call("request handled", model="alz", version="1.2.0", rows=i, score=0.93, ok=True, source="adni")

    return run


def structlog_(*, site: bool = False) -> Run:
    """The fast configuration of its documentation; with the same fields as ours where *site* is asked for."""
    import orjson
    import structlog

    each, where = structlog.processors, structlog.processors.CallsiteParameter
    steps: list[Any] = [structlog.contextvars.merge_contextvars, each.add_log_level, each.format_exc_info]
    steps.append(each.TimeStamper(fmt="iso", utc=True))
    if site:
        names = [where.PATHNAME, where.LINENO, where.FUNC_NAME, where.PROCESS, where.THREAD_NAME]
        steps.append(each.CallsiteParameterAdder(names))
        structlog.contextvars.bind_contextvars(**IDS, pipeline="bench", logger="bench", channel="bench")
    structlog.configure(
        cache_logger_on_first_use=True,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[*steps, each.JSONRenderer(serializer=orjson.dumps)],
        logger_factory=structlog.BytesLoggerFactory(open("structlog.log", "ab")),  # noqa: PTH123, SIM115
    )
    return by_name(structlog.get_logger().bind().info)


def standard(*, site: bool = False) -> logging.Logger:
    """The standard library's logger and file, and the faster formatter of python-json-logger."""
    from pythonjsonlogger.orjson import OrjsonFormatter

    log, handler = logging.getLogger("bench"), logging.FileHandler("standard.log")
    log.setLevel(logging.INFO)
    log.propagate = False
    more = ["pathname", "lineno", "funcName", "process", "threadName"] if site else []
    fixed = {"pipeline": "bench", **(IDS if site else {})}
    handler.setFormatter(OrjsonFormatter(["asctime", "levelname", "name", "message", *more], static_fields=fixed))
    log.addHandler(handler)
    if not site:
        without_site()
    return log


def behind_queue() -> Run:
    """The same behind a queue, whose thread does the work: the documentation's way of not waiting for a handler."""
    import queue
    from logging.handlers import QueueHandler, QueueListener

    log = standard()
    (handler,) = log.handlers
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    log.handlers = [QueueHandler(waiting)]
    write = by_extra(log.info)

    def run(records: int) -> None:
        listener = QueueListener(waiting, handler)
        listener.start()
        write(records)
        listener.stop()

    return run


def loguru_() -> Run:
    """Its serialized form, which always holds everything."""
    from loguru import logger

    logger.remove()
    logger.add("loguru.log", serialize=True, format="{message}")
    return by_name(logger.info)


def opentelemetry_() -> Run:
    """Its own logger, in batches, as JSON to a file."""
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter

    def formatted(record: Any) -> str:
        return str(record.to_json(indent=None)) + "\n"

    exporter = ConsoleLogRecordExporter(out=open("otel.log", "a"), formatter=formatted)  # noqa: PTH123, SIM115
    provider = LoggerProvider()
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    log = provider.get_logger("bench")

    def run(records: int) -> None:
        for i in range(records):
            log.emit(
                LogRecord(
                    timestamp=time.time_ns(),
                    severity_number=SeverityNumber.INFO,
                    severity_text="INFO",
                    body="request handled",
                    attributes={**FIELDS, "rows": i},
                )
            )
        provider.force_flush()

    return run


def logfire_() -> Run:
    """Its console, to a file, for it writes no other file by itself."""
    import logfire

    output = open("logfire.log", "a")  # noqa: PTH123, SIM115
    console = logfire.ConsoleOptions(output=output, colors="never", verbose=True, min_log_level="info")
    logfire.configure(send_to_logfire=False, metrics=False, inspect_arguments=False, console=console)
    return by_name(logfire.info)


def limit(*, buffered: bool = False) -> Run:
    """The least that Python can do for such a line: orjson, and a write a line or a write for many."""
    import orjson

    file = os.open("limit.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    write, now, utc, dumps = os.write, datetime.datetime.now, datetime.UTC, orjson.dumps

    def line(i: int) -> bytes:
        fields = {
            "timestamp": now(utc).isoformat(timespec="microseconds"),
            "level": "INFO",
            "logger": "bench",
            "channel": "bench",
            "message": "request handled",
            "pipeline": "bench",
            "context": {"model": "alz", "version": "1.2.0", "rows": i, "score": 0.93, "ok": True, "source": "adni"},
        }
        return dumps(fields, option=orjson.OPT_APPEND_NEWLINE)

    def through(records: int) -> None:
        for i in range(records):
            write(file, line(i))

    def kept(records: int) -> None:
        waiting = bytearray()
        for i in range(records):
            waiting += line(i)
            if len(waiting) > 65_536:
                write(file, waiting)
                waiting.clear()
        write(file, waiting)

    return kept if buffered else through


def bare() -> Run:
    """Nothing but the system call, for two files in turn, as where a record goes to two."""
    first, further = (os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for name in ("bare.log", "further.log"))
    line = b"x" * 249 + b"\n"

    def run(records: int) -> None:
        for _ in range(records // 2):
            os.write(first, line)
            os.write(further, line)

    return run


def further_file() -> float:
    """What the second file of a record adds, over a bare write: batches in turn, the best of each."""
    log = ours()
    runs = [by_extra(log.info), by_extra(log.error), bare()]
    best = [float("inf")] * len(runs)
    for _ in range(200):
        for number, run in enumerate(runs):
            begin = time.process_time()
            run(1_000)
            best[number] = min(best[number], time.process_time() - begin)
    one, two, least = best
    return (two - one) / least


def channels(count: int) -> Run:
    """So many files in turn."""
    logs = [ours(channel=f"airflow.dag{number}") for number in range(count)]

    def run(records: int) -> None:
        for i in range(records):
            logs[i % count].info("request handled", extra=FIELDS)

    return run


def threaded(run: Run) -> Run:
    """The same from eight threads."""

    def spread(records: int) -> None:
        threads = [threading.Thread(target=run, args=(records // 8,)) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    return spread


def by_processes(run: Run) -> Run:
    """The same from four processes."""
    run(1_000)  # what is imported at the first record is not imported by each of them

    def spread(records: int) -> None:
        for pid in [forked(run, records // PROCESSES) for _ in range(PROCESSES)]:
            _, status = os.waitpid(pid, 0)
            if status:
                sys.exit("a process failed")

    return spread


def queued() -> Run:
    """What the standard library's documentation tells for several processes: a queue to the one that writes."""
    from logging.handlers import QueueHandler, QueueListener
    from multiprocessing import Queue

    log = standard()
    (handler,) = log.handlers
    run = by_extra(log.info)

    def spread(records: int) -> None:
        queue: Queue[Any] = Queue()  # each time: a plain fork does not tell one that was used that it is in a child
        log.handlers = [QueueHandler(queue)]

        def child(records: int) -> None:
            run(records)
            queue.close()
            queue.join_thread()

        pids = [forked(child, records // PROCESSES) for _ in range(PROCESSES)]
        listener = QueueListener(queue, handler)
        listener.start()  # after the forks, which copy no thread
        for pid in pids:
            os.waitpid(pid, 0)
        listener.stop()

    return spread


def forked(run: Callable[[int], object], records: int) -> int:
    """Run it in a child of its own, and return its id; its exit status is 0 if nothing was raised."""
    pid = os.fork()
    if pid == 0:
        is_done = False
        try:
            run(records)
            is_done = True
        finally:
            os._exit(not is_done)
    return pid


CASES: dict[str, Callable[[], Run]] = {
    "bare write": bare,
    "limit": limit,
    "limit buffered": lambda: limit(buffered=True),
    "ours plain": lambda: by_extra(ours().info),
    "ours everything": lambda: by_extra(ours(site=True).info),
    "ours two files": lambda: by_extra(ours().error),
    "ours buffered": lambda: by_extra(ours("buffered").info),
    "ours redacted": lambda: by_extra(ours().info, password="hunter2"),
    "ours disabled": lambda: by_extra(ours().debug),
    "ours 8 threads": lambda: threaded(by_extra(ours().info)),
    "standard plain": lambda: by_extra(standard().info),
    "standard everything": lambda: by_extra(standard(site=True).info),
    "standard queue": behind_queue,
    "standard disabled": lambda: by_extra(standard().debug),
    "standard 8 threads": lambda: threaded(by_extra(standard().info)),
    "ours 4 processes": lambda: by_processes(by_extra(ours().info)),
    "standard 4 processes": lambda: by_processes(by_extra(standard().info)),
    "standard 4 processes, queue": queued,
    "structlog plain": structlog_,
    "structlog everything": lambda: structlog_(site=True),
    "loguru": loguru_,
    "opentelemetry": opentelemetry_,
    "logfire": logfire_,
    "1 channel": lambda: channels(1),
    "10 channels": lambda: channels(10),
    "50 channels": lambda: channels(50),
}


def main(case: str, records: int) -> None:
    """Run a case, and print what it cost a record."""
    run = CASES[case]()
    run(min(records, 1_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, begin = _cpu_seconds(), time.perf_counter()
    run(records)
    if case == "ours buffered":
        from ml_pipeline._runtime import shutdown

        shutdown()
    cpu, wall = _cpu_seconds() - cpu, time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"us": cpu / records * 1e6, "wall_us": wall / records * 1e6}
    if case == "ours two files":
        found["further"] = further_file()
    print(json.dumps({**found, "peak_mb": peak / 1024, "grown_mb": (peak - before) / 1024}))


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
