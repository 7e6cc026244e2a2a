"""Whatever happens to a pipeline, started again it ends with the same results, and nothing finished is done again."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from induction_cli.config import ConfigError, DataConfig, EvaluationConfig, ModelConfig, SnapshotConfig, TrainConfig
from induction_cli.pipeline import memory, schedule
from induction_cli.pipeline.memory import Record
from induction_cli.pipeline.steps import TRAINING, Step, key_of, keys_of
from induction_cli.runs import process as this_process
from induction_cli.runs.process import Interrupted
from induction_cli.runs.run_dir import RunDir, RunError

pytestmark = pytest.mark.slow


@dataclass
class Work:
    """The settings of a step of these tests. does: '' | fail | kill | wait | meet NAME."""

    value: int = 0
    does: str = ""
    run_dir: str = ""
    threads: int = 0


def run(config: Work, out_dir: Path) -> float:
    """The room of these tests: notes that it was called, does as it is told, writes a table."""
    with (out_dir.parent / "calls").open("a") as file:
        file.write(f"{out_dir.name} {os.getpid()}\n")
    if config.does == "fail":
        raise ConfigError("the value does not fit")
    if config.does == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.does.startswith("meet"):
        until = time.monotonic() + 30
        while config.does.split()[1] not in calls(out_dir.parent) and time.monotonic() < until:
            time.sleep(0.01)
    if config.does == "wait":
        time.sleep(600)
    RunDir(out_dir).write_table("token_counts", pd.DataFrame({"token": [0], "count": [config.value]}))
    return 0.0


def calls(root: Path) -> Counter:
    """How often each step was begun."""
    file = root / "calls"
    return Counter(line.split()[0] for line in file.read_text().splitlines()) if file.exists() else Counter()


def step(name: str, value: int = 0, does: str = "", **more) -> Step:
    return Step(name, 1, __name__, Work(value, does), name, f"induction {name}", **more)


CHAIN = [step("a", 1), step("b", 2, needs=("a",)), step("c", 3), step("d", 4, after=("b", "c"))]


def go(steps: list[Step], root: Path, workers: int = 2, **more) -> tuple[dict[str, str], str]:
    """({step: status}, what was printed)."""
    said = io.StringIO()
    found = schedule.run(steps, root, workers, console=Console(file=said, width=200), **more)
    return {record.name: record.status for record in found}, said.getvalue()


def remembered(root: Path) -> list[dict]:
    return json.loads((root / "steps.json").read_text())


# ------------------------------------------------------------------------------------------------ keys


def test_a_setting_changes_its_key_and_those_that_depend_on_it():
    keys, changed = keys_of(CHAIN), keys_of([step("a", 7), *CHAIN[1:]])
    assert {name for name in keys if keys[name] != changed[name]} == {"a", "b", "d"}


def test_where_and_how_it_is_computed_is_not_in_the_key():
    moved = replace(CHAIN[1], config=Work(2, "", run_dir="elsewhere", threads=3))
    assert key_of(moved, ["k"]) == key_of(CHAIN[1], ["k"])
    assert key_of(replace(CHAIN[0], inputs="other text"), []) != key_of(CHAIN[0], [])
    assert key_of(CHAIN[0], [], "0.0") != key_of(CHAIN[0], [])


def test_a_model_by_name_is_in_the_key():
    one, two = (replace(CHAIN[0], config=Work(run_dir=name)) for name in ("smollm2", "hf:gpt2"))
    assert key_of(one, []) != key_of(two, [])


# ------------------------------------------------------------------------------------------------ doing


def test_everything_once_in_order(tmp_path):
    statuses, said = go(CHAIN, tmp_path)
    assert set(statuses.values()) == {"done"}
    assert calls(tmp_path) == Counter("abcd")
    assert "4/4 done     d" in said
    rows = remembered(tmp_path)
    assert [row["name"] for row in rows] == list("abcd")
    assert set(rows[0]) == {"name", "line", "command", "folder", "key", "status", "seconds", "error"}
    assert rows[0]["command"] == "induction a"
    assert (tmp_path / "a" / ".hydra" / "config.yaml").exists()
    statuses, said = go(CHAIN, tmp_path)
    assert set(statuses.values()) == {"done"} and calls(tmp_path) == Counter("abcd")
    assert "4 of 4 steps are done already" in said


def test_workers_work_side_by_side(tmp_path):
    """Each of the two waits until the other has begun."""
    statuses, _ = go([step("a", does="meet b"), step("b", does="meet a")], tmp_path)
    assert set(statuses.values()) == {"done"}


def test_a_changed_setting_repeats_what_depends_on_it(tmp_path):
    go(CHAIN, tmp_path)
    go([step("a", 7), *CHAIN[1:]], tmp_path)
    assert calls(tmp_path) == {"a": 2, "b": 2, "c": 1, "d": 2}
    assert RunDir(tmp_path / "a").table("token_counts")["count"].item() == 7


def test_a_lost_folder_is_made_again(tmp_path):
    go(CHAIN, tmp_path)
    (tmp_path / "c" / "tables" / "token_counts.csv").unlink()
    os.rename(tmp_path / "c", tmp_path / "gone")
    go(CHAIN, tmp_path)
    assert calls(tmp_path)["c"] == 2 and (tmp_path / "c" / "tables" / "token_counts.csv").exists()


@pytest.mark.parametrize(("does", "error"), [("fail", "the value does not fit"), ("kill", "was killed by signal 9")])
def test_a_failing_step_stops_only_those_that_need_it(tmp_path, does, error):
    steps = [step("a", does=does), *CHAIN[1:]]
    statuses, said = go(steps, tmp_path)
    assert statuses == {"a": "failed", "b": "skipped", "c": "done", "d": "done"}
    rows = {row["name"]: row for row in remembered(tmp_path)}
    assert error in rows["a"]["error"] and "logs/a.log" in said
    assert rows["b"]["error"] == "needs 'a', which failed"
    go([replace(steps[0], config=Work(0)), *steps[1:]], tmp_path)  # d is done again: now it has b to look at
    assert calls(tmp_path) == {"a": 2, "b": 1, "c": 1, "d": 2}


def test_what_cannot_be_done_here_is_skipped_with_the_reason(tmp_path):
    statuses, said = go([step("a", missing="pip install it"), step("b", needs=("a",))], tmp_path)
    assert statuses == {"a": "skipped", "b": "skipped"}
    assert "a: pip install it" in said and "needs 'a', which was skipped" in said


def test_always_means_at_every_start(tmp_path):
    steps = [step("a"), step("b", after=("a",), always=True)]
    for _ in range(2):
        go(steps, tmp_path)
    assert calls(tmp_path) == {"a": 1, "b": 2}


def test_a_second_pipeline_in_the_same_folder_is_refused(tmp_path):
    with RunDir(tmp_path).lock(), pytest.raises(RunError, match="in use by another process"):
        go(CHAIN, tmp_path)


def test_damaged_memory_is_named(tmp_path):
    (tmp_path / "steps.json").write_text('[{"name": "a"')
    with pytest.raises(RunError, match=r"steps\.json is damaged"):
        go(CHAIN, tmp_path)


ROOM = """
import pandas as pd
from {measure} import measure
from induction_cli.runs.run_dir import RunDir
def run(config, out_dir):
    RunDir(out_dir).write_table("token_counts", pd.DataFrame({{"token": [0], "count": [measure()]}}))
    return 0.0
"""


def new_process() -> None:
    """Sources are looked at once by each process."""
    this_process.sources_hash.cache_clear()
    this_process.imported_by.cache_clear()


def test_a_changed_measure_is_done_again(tmp_path, monkeypatch):
    """What a step imports is in its key: its own measure, not that of another step."""
    package = tmp_path / "small"
    for name in ("one", "two"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text(ROOM.format(measure=f"small.{name}.numbers"))
        (package / name / "numbers.py").write_text("def measure():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(this_process, "PACKAGE", package)
    steps = [replace(step(name), room=f"small.{name}") for name in ("one", "two")]
    root = tmp_path / "root"
    _, said = go(steps, root)
    assert "2/2 done" in said
    (package / "one" / "numbers.py").write_text("def measure():\n    return 20\n")
    new_process()
    _, said = go(steps, root)
    assert "done     one" in said and "1 of 2 steps are done already" in said
    assert [RunDir(root / name).table("token_counts")["count"].item() for name in ("one", "two")] == [20, 1]
    new_process()


# ------------------------------------------------------------------------------------------------ taking over


def test_finished_steps_of_another_folder_are_linked(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    go(CHAIN, one)
    (one / "a" / "train.log").write_text("said")
    (one / "a" / "score").mkdir()  # the room of another step
    _, said = go(CHAIN, two, elsewhere=memory.done_elsewhere([one]))
    assert calls(two) == Counter() and "reused" in said
    pairs = [root / "a" / "tables" / "token_counts.csv" for root in (one, two)]
    assert pairs[0].stat().st_ino == pairs[1].stat().st_ino
    assert (two / "a" / "train.log").stat().st_ino != (one / "a" / "train.log").stat().st_ino  # logs are written into
    assert not (two / "a" / "score").exists()
    RunDir(two / "a").write_table("token_counts", pd.DataFrame({"token": [0], "count": [99]}))
    assert RunDir(one / "a").table("token_counts")["count"].item() == 1


def test_nothing_is_taken_over_what_is_there(tmp_path):
    one = tmp_path / "one"
    go([step("a", 1)], one)
    RunDir(tmp_path / "mine").write_table("token_counts", pd.DataFrame({"token": [0], "count": [5]}))
    assert not memory.take_over(one / "a", tmp_path / "mine")
    assert RunDir(tmp_path / "mine").table("token_counts")["count"].item() == 5


def test_the_folder_of_the_same_steps_is_found(tmp_path):
    for name in ("1", "2", "3"):
        go([step("a", int(name) % 2)], tmp_path / name)
    assert memory.folder_of_same([step("a", 1)], tmp_path) == tmp_path / "3"
    assert memory.folder_of_same([step("a", 0)], tmp_path) == tmp_path / "2"
    assert memory.folder_of_same([step("a", 5)], tmp_path) is None


# ------------------------------------------------------------------------------------------------ killed, interrupted

SCRIPT = """
import pickle, sys
from pathlib import Path
from induction_cli.pipeline import schedule
if __name__ == "__main__":
    steps = pickle.loads(Path(sys.argv[1]).read_bytes())
    schedule.run(steps, Path(sys.argv[2]), 2)
"""


def launched(steps: list[Step], root: Path) -> subprocess.Popen:
    """A pipeline in a process of its own."""
    import pickle

    script, plan = root.parent / "script.py", root.parent / "plan"
    script.write_text(SCRIPT)
    plan.write_bytes(pickle.dumps(steps))
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent)])
    return subprocess.Popen(
        [sys.executable, str(script), str(plan), str(root)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    process.stderr.close()


def until(true, what: str) -> None:
    """Poll; a generous limit for a busy machine."""
    limit = time.monotonic() + 120
    while not true():
        assert time.monotonic() < limit, f"waited in vain for {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] if Path("/proc").exists() else True


def pid_of(root: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in (root / "calls").read_text().splitlines() if line.split()[0] == name)


def test_workers_end_with_a_killed_parent(tmp_path):
    root = tmp_path / "root"
    process = launched([step("a", does="wait")], root)
    until(lambda: calls(root)["a"] == 1, "the step to begin")
    worker = pid_of(root, "a")
    kill(process)
    until(lambda: not alive(worker), "the worker to end")
    statuses, _ = go([step("a")], root)
    assert statuses == {"a": "done"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_all_and_is_remembered(tmp_path, number):
    root = tmp_path / "root"
    process = launched([step("a", does="wait"), step("b")], root)
    until(lambda: calls(root)["a"] == 1 and (root / "b" / "tables" / "token_counts.csv").exists(), "both steps")
    worker = pid_of(root, "a")
    process.send_signal(number)
    _, said = process.communicate()
    assert b"Interrupted" in said and process.returncode != 0
    assert not alive(worker)
    assert {row["name"]: row["status"] for row in remembered(root)}["a"] == "waiting"
    go([step("a"), step("b")], root)
    assert calls(root)["b"] <= 2


def test_interruption_carries_the_signal(tmp_path, monkeypatch):
    """What launch.py turns into 130 or 143."""
    monkeypatch.setattr(schedule, "start", lambda *_: os.kill(os.getpid(), signal.SIGTERM) or FINISHED)
    with pytest.raises(Interrupted) as stopped:
        go([step("a")], tmp_path)
    assert stopped.value.signal == signal.SIGTERM


class Finished:
    """A worker that ended at once."""

    step, seconds = step("a"), 0.0

    class process:
        sentinel = os.open(os.devnull, os.O_RDONLY)
        is_alive = join = terminate = kill = staticmethod(lambda *_: False)

    def outcome(self):
        return "waiting", "interrupted"


FINISHED = Finished()


@pytest.fixture(scope="module")
def trainings(tmp_path_factory) -> list[Step]:
    """Three small models, and what looks at them."""
    config = TrainConfig(
        model=ModelConfig(n_layers=1, n_heads=2, d_head=8, d_model=16, n_ctx=64, d_vocab=61),
        data=DataConfig("repeats", repeat_tokens=60_000, cache_dir=str(tmp_path_factory.mktemp("cache"))),
        snapshots=SnapshotConfig(linear=5),
        evaluation=EvaluationConfig(16, 8, early_index=8, late_index=60, half_width=2, n_sequences=2),
        tokens=10_000,
        batch_size=4,
        device="cpu",
        threads=1,
    )
    models = [Step(f"train {n}", 1, TRAINING, replace(config, seed=n), f"train/{n}") for n in range(3)]
    looks = [replace(step(f"look {n}", n, needs=(f"train {n}",)), folder=f"look_{n}") for n in range(3)]
    return [*models, *looks]


@pytest.fixture(scope="module")
def undisturbed(trainings, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "root"
    statuses, _ = go(trainings, root)
    assert set(statuses.values()) == {"done"}
    return root


def results(root: Path) -> dict[str, bytes]:
    """Every snapshot, resume state and table; of training.csv only what no clock measured."""
    found = {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.suffix in (".safetensors", ".csv") and path.name != "training.csv"
    }
    for path in root.rglob("training.csv"):
        table = pd.read_csv(path, dtype=str).drop(columns="tokens_per_second")
        found[str(path.relative_to(root))] = table.to_csv().encode()
    return found


@pytest.mark.parametrize("seed", range(2))
def test_kill_9_at_random_instants(trainings, undisturbed, tmp_path, seed):
    """Three times; then it is left alone. Every analysis is begun at most once more for each kill it was hit by."""
    root, times = tmp_path / "root", random.Random(seed)
    for _ in range(3):
        process = launched(trainings, root)
        until(lambda p=process: (root / "steps.json").exists() or p.poll() is not None, "the start")
        time.sleep(times.uniform(0, 8))
        kill(process)
    done_before = {row["name"] for row in remembered(root) if row["status"] == "done"}
    begun = calls(root)
    statuses, _ = go(trainings, root)
    assert set(statuses.values()) == {"done"}
    again = calls(root) - begun
    assert not {f"look_{name[-1]}" for name in done_before if name.startswith("look")} & set(again)
    assert max(again.values(), default=0) <= 1
    assert results(root) == results(undisturbed)


# ------------------------------------------------------------------------------------------------ time left, display


def test_urgency_is_the_longest_chain():
    steps = [step("a", weight=3), step("b", weight=5, needs=("a",)), step("c", weight=7), step("d", after=("b", "c"))]
    assert schedule.urgencies(steps) == {"a": 9, "b": 6, "c": 8, "d": 1}


def test_time_left_by_hand():
    """a took 6 s instead of 3, so b (5) and c (7) will take 10 and 14 s; 4 s of c are over: 20 s on 2 workers."""
    steps = [step("a", weight=3), step("b", weight=5), step("c", weight=7)]
    records = {name: Record(name, 1, "", name) for name in "abc"}
    records["a"].status, records["a"].seconds = "done", 6.0
    assert schedule.seconds_left(steps, records, {"c": 4.0}, {"a"}, 2) == pytest.approx(10.0)
    assert schedule.seconds_left(steps, records, {"c": 4.0}, {"a"}, 5) == pytest.approx(10.0)  # b and c by themselves
    assert schedule.seconds_left(steps, records, {"c": 4.0}, {"a"}, 1) == pytest.approx(20.0)


@pytest.mark.parametrize("width", [20, 40, 120])
def test_a_terminal_of_any_width(tmp_path, width):
    said = io.StringIO()
    console = Console(file=said, width=width, force_terminal=True)
    schedule.run([step("a" * 60), step("b", does="fail")], tmp_path, 2, console=console)
    assert "a" * 60 in said.getvalue() and "the value does not fit" in said.getvalue()
