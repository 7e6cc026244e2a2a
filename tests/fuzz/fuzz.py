"""Tries commands on settings and files that are not as they should be, and says which did not end as they should.

    python tests/fuzz/fuzz.py [N] [--seed SEED] [--code CHECKOUT] [--jobs 2] [--case JSON] [--save FILE]

A command ends well with exit code 0 and results, or with 2 (the request was wrong) or 1 (the run went wrong) and one
line on stderr that begins with 'error:'. It leaves no empty folder, no half-written file, and nothing of before is
gone. Each case runs in a copy of a folder with a small run in it, with limits on memory and time. What fails is made
smaller while it fails, and printed as a command. --code: another version of the project, on the same cases.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import queue
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import damage  # noqa: E402
import odd_files  # noqa: E402
import odd_settings  # noqa: E402
from cases import PREPARED, STOPPED, Case, write_corpus  # noqa: E402

CPU_SECONDS, SECONDS, MEMORY = 30, 180, 2 * 2**30
NOTHING = {".hydra", ".hydra.asked", ".lock", "multirun.yaml"}  # what stands in a folder without results, and logs
SIMPLER = ("missing", "empty", "truncated")  # rules that are tried in the place of others


@dataclass(frozen=True)
class Outcome:
    case: Case
    faults: tuple[str, ...]
    said: str
    seconds: float  # of a processor


class Server:
    """A process that has imported everything, and forks for each command."""

    def __init__(self, code: Path):
        environment = os.environ | {"PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "server.py")],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.reply()

    def reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the server of the fuzzer is gone; its last words are above")
        return json.loads(line)

    def run(self, arguments: list[str], folder: Path, interrupt: str = "") -> dict[str, Any]:
        assert self.process.stdin is not None
        request = {"arguments": arguments, "folder": str(folder), "interrupt": interrupt}
        limits = {"cpu_seconds": CPU_SECONDS, "seconds": SECONDS, "memory": MEMORY}
        print(json.dumps(request | limits), file=self.process.stdin, flush=True)
        return self.reply()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def prepare(server: Server, folder: Path) -> None:
    """A finished run with results, one that was stopped, and text."""
    folder.mkdir()
    write_corpus(folder / "corpus")
    for case in PREPARED:
        stopped = f"{STOPPED}/snapshots/*" if STOPPED in case.usual.values() else ""
        done = server.run(case.arguments, folder, stopped)
        if done["status"] != (130 if stopped else 0):
            raise RuntimeError(f"{' '.join(case.arguments)} ended with {done['status']}: {done['errors']}")
    (folder / "runs" / "empty").mkdir()


def draw(number: int, seed: int, prepared: Path) -> list[Case]:
    """As many of every kind; the same for the same seed, schema and files."""
    chance = Random(seed)
    kinds = [partial(kind, chance) for kind in odd_settings.KINDS]
    kinds += [partial(odd_files.damaged_file, kind, prepared, chance) for kind in odd_files.FILES]
    return [kinds[i % len(kinds)]() for i in range(number)]


# ------------------------------------------------------------------------------------------------ the criterion


def contents(folder: Path) -> dict[str, str]:
    """Every file and folder, and the hash of what is in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def is_log(name: str) -> bool:
    return name.endswith((".log", ".lock")) or name.partition("/")[0] in ("cache", ".cache", ".config")


def headlines(folder: Path) -> list[Any]:
    """Of whatever says that it is done."""
    found = []
    for path in folder.rglob("meta.json"):
        try:
            meta = json.loads(path.read_bytes())
            found += [meta["headline"]] if meta["status"] == "done" else []
        except (ValueError, KeyError, TypeError, OSError):
            continue
    return found


def faults(case: Case, done: dict[str, Any], before: dict[str, str], folder: Path) -> list[str]:
    """What is wrong with how a command ended; nothing is as it should be."""
    status, lines = done["status"], done["errors"].strip().splitlines()
    after = contents(folder)
    found = [f"killed: {-status}"] if status < 0 else []
    found += ["traceback"] if "Traceback (most recent" in done["errors"] + done["said"] else []
    found += ["half-written files"] if any(name.endswith(".part") for name in set(after) - set(before)) else []
    if status == 0:
        found += ["accepted"] if case.refused else []
        found += ["a warning of a library"] if "Warning:" in done["errors"] else []
        odd = [value for value in headlines(folder) if isinstance(value, float) and not math.isfinite(value)]
        found += ["a headline that is no number"] if odd else []
    elif status > 0:
        found += [f"exit code {status}"] if status not in (1, 2) else []
        several = "-m" in case.flags
        good = lines and all(line.startswith("error: ") for line in lines) and (several or len(lines) == 1)
        found += [] if good else [f"{len(lines)} lines on stderr"]
        found += ["a raw exception"] if "INDUCTION_DEBUG" in done["errors"] else []
        found += lost(case, status, before, after)
        found += left_behind(status, before, after)
    return found


def lost(case: Case, status: int, before: dict[str, str], after: dict[str, str]) -> list[str]:
    gone = [name for name in before if name not in after and not is_log(name)]
    if gone:
        return [f"gone: {gone[0]}"]
    touched = [name for name, content in before.items() if after[name] != content and not is_log(name)]
    if touched and "--resume" not in case.flags:  # a run that goes on notes in it why it stopped
        return [f"changed although it failed: {touched[0]}"]
    return []


def left_behind(status: int, before: dict[str, str], after: dict[str, str]) -> list[str]:
    new = [name for name in after if name not in before and not is_log(name)]
    if status == 2 and new:
        return [f"left behind by what was refused: {new[0]}"]
    for name in new:
        inside = [other[len(name) + 1 :] for other in after if other.startswith(f"{name}/")]
        within_nothing = NOTHING & set(name.split("/"))
        if (
            after[name] == "folder"
            and not within_nothing
            and {i.split("/")[0] for i in inside if not is_log(i)} <= NOTHING
        ):
            return [f"an empty folder is left: {name}"]
    return []


# ------------------------------------------------------------------------------------------------ running


class Fuzzer:
    """Servers, and the folder that each case gets a copy of."""

    def __init__(self, code: Path, jobs: int, work: Path):
        with ThreadPoolExecutor(jobs) as threads:
            self.servers = list(threads.map(Server, [code] * jobs))
        self.free: queue.Queue[Server] = queue.Queue()
        self.work, self.prepared = work, work / "prepared"
        self.count, self.lock = 0, threading.Lock()
        prepare(self.servers[0], self.prepared)
        for server in self.servers:
            self.free.put(server)

    def run(self, case: Case) -> Outcome:
        with self.lock:
            self.count += 1
            folder = self.work / str(self.count)
        shutil.copytree(self.prepared, folder, symlinks=True)
        for each in case.damage:
            damage.apply(folder, each.file, each.rule, each.seed)
        before = contents(folder)
        server = self.free.get()
        try:
            done = server.run(case.arguments, folder)
        finally:
            self.free.put(server)
        found = faults(case, done, before, folder)
        for left in (folder, folder.with_name(f"{folder.name}.stdout"), folder.with_name(f"{folder.name}.stderr")):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        return Outcome(
            case, tuple(found), f"exit code {done['status']}\n{done['errors'].strip()[-3000:]}", done["seconds"]
        )

    def shrink(self, outcome: Outcome) -> Outcome:
        """Leave out what does not matter, and damage more simply, as long as it fails."""
        for simpler in smaller(outcome.case):
            tried = self.run(simpler)
            if tried.faults:
                return self.shrink(tried)
        return outcome

    def close(self) -> None:
        for server in self.servers:
            server.close()


def smaller(case: Case) -> Iterator[Case]:
    """Each one step simpler."""
    if len(case.odd) > 1:
        for gone in case.odd:
            yield replace(case, odd={key: value for key, value in case.odd.items() if key != gone})
    if len(case.damage) > 1:
        for each in case.damage:
            yield replace(case, damage=tuple(other for other in case.damage if other != each))
    elif case.damage and case.damage[0].rule not in SIMPLER:
        for rule in SIMPLER:
            yield replace(case, damage=(replace(case.damage[0], rule=rule),))


@contextmanager
def fuzzer(code: Path, jobs: int) -> Iterator[Fuzzer]:
    with tempfile.TemporaryDirectory(prefix="fuzz_") as work:
        made = Fuzzer(code, jobs, Path(work))
        try:
            yield made
        finally:
            made.close()


def as_command(case: Case) -> str:
    """What to type in the prepared folder, and how its files are damaged before."""
    harm = [f"{each.rule}({each.file}, {each.seed})" for each in case.damage]
    return "; ".join([*harm, "induction " + " ".join(map(shlex.quote, case.arguments))])


def described(outcome: Outcome) -> str:
    case = outcome.case
    return (
        f"{case.kind}: {', '.join(outcome.faults)}\n  {as_command(case)}\n"
        f"  again: python tests/fuzz/fuzz.py --case {shlex.quote(case.to_json())}\n"
        + "".join(f"  | {line[:300]}\n" for line in outcome.said.splitlines()[-12:])
    )


def table(outcomes: list[Outcome]) -> str:
    kinds = sorted({outcome.case.kind for outcome in outcomes})
    rows = []
    for kind in kinds:
        failed = [bool(outcome.faults) for outcome in outcomes if outcome.case.kind == kind]
        rows.append((kind, len(failed) - sum(failed), sum(failed)))
    rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    return "\n".join([f"{'kind':30} passed failed", *(f"{kind:30} {good:6} {bad:6}" for kind, good, bad in rows)])


def all_of(made: Fuzzer, todo: list[Case], jobs: int, shrink: bool) -> list[Outcome]:
    """Run them side by side; say at once what fails."""
    outcomes = []
    with ThreadPoolExecutor(jobs) as threads:
        for outcome in threads.map(made.run, todo):
            outcomes.append(outcome)
            if outcome.faults:
                print(described(made.shrink(outcome) if shrink else outcome), flush=True)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("number", nargs="?", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--code", type=Path, default=HERE.parents[1], help="the checkout that is tried")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--as-they-are", action="store_true", help="do not make what fails smaller")
    parser.add_argument("--case", help="one case, as it was printed")
    parser.add_argument("--save", type=Path, help="a file for the failures, one JSON a line")
    asked = parser.parse_args()
    with fuzzer(asked.code.resolve(), asked.jobs) as made:
        todo = [Case.from_json(asked.case)] if asked.case else draw(asked.number, asked.seed, made.prepared)
        outcomes = all_of(made, todo, asked.jobs, not asked.as_they_are)
    if asked.save:
        failed = [outcome for outcome in outcomes if outcome.faults]
        lines = [json.dumps({"faults": each.faults, "said": each.said, "case": each.case.to_json()}) for each in failed]
        asked.save.write_text("".join(f"{line}\n" for line in lines))
    print(table(outcomes))
    sys.exit(int(any(outcome.faults for outcome in outcomes)))


if __name__ == "__main__":
    main()
