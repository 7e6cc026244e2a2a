"""Runs commands as a shell would, each in a process of its own, without starting Python and torch anew for each.

    PYTHONPATH=CHECKOUT python tests/fuzz/server.py

Reads a request per line from stdin: {"arguments", "folder", "cpu_seconds", "seconds", "memory", "interrupt"}; writes a
reply per line: {"status", "said", "errors", "seconds"}. It imports nothing of the fuzzer: any checkout will do.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

LONGEST = 20_000  # characters of what a command said that are kept


def load() -> None:
    """Everything a command may need, once. No computation: autograd does not survive a fork."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ |= {"MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"}
    import torch

    import induction_cli

    torch.set_num_threads(1)
    for found in pkgutil.walk_packages(induction_cli.__path__, "induction_cli."):
        with contextlib.suppress(ImportError):  # an extra that is not installed
            importlib.import_module(found.name)


def virtual_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def interrupt_after(files: str) -> None:
    """Ctrl-C once two files of this pattern are there."""
    while len(list(Path().glob(files))) < 2:
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGINT)


def child(request: dict[str, Any]) -> None:
    """The command itself; never returns."""
    os.setsid()
    os.chdir(request["folder"])
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        flags = os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open("/dev/null" if name == "stdin" else f"{request['folder']}.{name}", flags), number)
    os.environ |= {"INDUCTION_CACHE": str(Path("cache").resolve()), "HOME": os.getcwd(), "COLUMNS": "120"}
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (request["cpu_seconds"], request["cpu_seconds"] + 1))
    most = virtual_memory() + request["memory"]
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    if request["interrupt"]:
        threading.Thread(target=interrupt_after, args=(request["interrupt"],), daemon=True).start()
    from induction_cli.cli import main

    sys.argv = ["induction", *request["arguments"]]
    status = 1
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def wait(process: int, seconds: float) -> int:
    """The exit status, as subprocess gives it: -9 for one that was killed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def cpu_seconds() -> float:
    """Of the commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def kept(path: str) -> str:
    text = Path(path).read_bytes().decode(errors="replace") if Path(path).exists() else ""
    return text if len(text) <= LONGEST else text[: LONGEST // 2] + "\n[...]\n" + text[-LONGEST // 2 :]


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    load()
    print("{}", file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        before = cpu_seconds()
        process = os.fork()
        if not process:
            child(request)
        status = wait(process, request["seconds"])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)  # what it left running
        said, errors = kept(f"{request['folder']}.stdout"), kept(f"{request['folder']}.stderr")
        reply = {"status": status, "said": said, "errors": errors, "seconds": cpu_seconds() - before}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
