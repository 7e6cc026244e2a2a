"""Every kind of file that a run or a results folder holds, damaged in every way we know.

One line says which file it is, what is wrong with it and what to do.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_report import small_run

from induction_cli import cli
from induction_cli.config import ConfigError, ScoreConfig
from induction_cli.evaluation.scores import load_snapshot
from induction_cli.evaluation.sources import open_source
from induction_cli.evidence import compare, report
from induction_cli.page import rooms
from induction_cli.page.rooms import COMMANDS
from induction_cli.pipeline.memory import read_records
from induction_cli.runs.files import beside
from induction_cli.runs.run_dir import RunDir, RunError
from induction_cli.runs.tensors import tensor_hash, write_tensors
from induction_cli.training.state import load, set_up
from induction_cli.verdicts import load_claims
from induction_cli.verdicts.tables import damaged_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs"), 1)


@pytest.fixture
def run(trained, tmp_path) -> RunDir:
    shutil.copytree(trained, tmp_path / "run")
    return RunDir(tmp_path / "run")


def one_line(stderr: str) -> str:
    """What a command said of its failure: a single line, no trace."""
    assert stderr.startswith("error: ") and stderr.count("\n") == 1, stderr
    return stderr


def fails(capsys, *arguments: str) -> str:
    assert cli.run([str(argument) for argument in arguments]) != 0
    return one_line(capsys.readouterr().err)


# ------------------------------------------------------------------------------------------------ config.yaml

ALIASES = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True))
CONFIGS = {
    "empty": (b"", "it is empty"),
    "only a comment": (b"# nothing\n", "it is empty"),
    "a list": (b"- 1\n- 2\n", "it is no table of settings"),
    "truncated": (b"model:\n  n_layers: 2\n  init: {output_gain: 1.0,", "line 3"),
    "a tab": (b"seed: 1\n\tthreads: 1\n", "line 2: found character '\\t'"),
    "a tag": (b"seed: !!python/object/apply:os.getpid []\n", "line 1 has a tag"),
    "a path's tag": (b"device: !!python/object/apply:pathlib.Path [/etc]\n", "line 1 has a tag"),
    "a key twice": (b"seed: 1\nseed: 2\n", "duplicate key seed"),
    "aliases": (ALIASES.encode(), "line 2 has an alias"),
    "Latin-1": ("device: caf\xe9\n".encode("latin-1"), "it is not UTF-8 from byte 11 on"),
    "UTF-16": ("seed: 1\n".encode("utf-16"), "it is not UTF-8 from byte 0 on"),
    "NUL": (b"seed: \0\n", "special characters are not allowed"),
    "deep": (b"seed: " + b"[" * 5000 + b"]" * 5000, "recursion"),
    "thousands of digits": (b"seed: " + b"9" * 5000, "limit"),
    "without end": (b"#" * (10**7 + 1), "it has more than 10000000 bytes"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_config(run, case):
    content, wrong = CONFIGS[case]
    run.config_file.write_bytes(content)
    with pytest.raises(RunError) as error:
        run.config()
    said = " ".join(str(error.value).split())
    assert f"{run.config_file} is damaged" in said and wrong in said and "put back a copy" in said and len(said) < 700


@pytest.mark.parametrize("text", ["seed: 99999999999999999999999", "seed: [1]", "model: {n_layers: -1}", "sead: 1",
                                  "tokens: .nan", "evaluation: {batch_size: -1}", "text"])  # fmt: skip
def test_config_of_other_settings(run, text):
    run.config_file.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml: ") as error:
        run.config()
    assert "\n" not in str(error.value)


def test_a_damaged_config_ends_a_command_in_one_line(run, capsys):
    run.config_file.write_bytes(ALIASES.encode())
    assert "config.yaml is damaged" in fails(capsys, "score", run.path)
    assert "config.yaml is damaged" in fails(capsys, "export", run.path, "--to", "transformer-lens")


# ------------------------------------------------------------------------------------------------ meta.json

METAS = {
    "a list": ("[]", "it holds [], not names and values"),
    "text": ('"x"', 'it holds "x", not'),
    "null": ("null", "it holds null, not"),
    "cut": ('{"status": "do', "Unterminated string"),
    "empty": ("", "Expecting value"),
    "a status that is a list": ('{"status": ["done"]}', 'its status is ["done"]'),
    "data that is a number": ('{"data": 3}', "its data is 3"),
    "thousands of digits": ('{"headline": ' + "9" * 5000 + "}", "limit"),
    "deep": ("[" * 100_000, "recursion"),
}


@pytest.mark.parametrize("case", METAS)
def test_meta(run, case):
    text, wrong = METAS[case]
    run.meta_file.write_text(text)
    assert run.is_run() and run.kept_meta() == {}
    with pytest.raises(RunError) as error:
        run.meta()
    assert str(run.meta_file) in str(error.value) and wrong in str(error.value) and "--resume" in str(error.value)


def test_what_is_said_of_a_damaged_meta_works(run):
    run.meta_file.write_text("{}")
    before = run.table_file("by_chain").read_bytes()
    assert cli.run(["train", "--resume", str(run.path)]) == 0
    assert run.meta()["status"] == "done" and run.table_file("by_chain").read_bytes() == before


# ------------------------------------------------------------------------------------------------ snapshots


def rewritten(path: Path, change=dict, **notes: object) -> None:
    """The same file with other tensors and notes, whole by its checksum."""
    from safetensors.torch import load_file

    tensors = change(load_file(path))
    kept = {"step": "0", "tokens": "0", "sha256": tensor_hash(tensors), **notes}
    save_file(tensors, path, {"notes": json.dumps(kept)})


def shrunk(tensors: dict) -> dict:
    return {**tensors, "W_E": tensors["W_E"][:-1].contiguous()}


def spoilt(tensors: dict) -> dict:
    return {**tensors, "W_E": tensors["W_E"] * torch.nan}


SNAPSHOTS = {
    "no notes": (lambda path: save_file({"W_E": torch.zeros(3)}, path), "its notes do not say its step"),
    "notes that are a list": (
        lambda path: save_file({"W_E": torch.zeros(3)}, path, {"notes": "[]"}), "its notes are not text by name",
    ),
    "notes that are cut": (lambda path: save_file({"W_E": torch.zeros(3)}, path, {"notes": '{"st'}), "Unterminated"),
    "notes of numbers": (lambda path: rewritten(path, step=7), "its notes are not text by name"),
    "a step in words": (lambda path: rewritten(path, step="seven"), "its step is 'seven', no whole number"),
    "a negative step": (lambda path: rewritten(path, step="-1"), "its step is '-1', no whole number"),
    "no tokens": (lambda path: rewritten(path, tokens=""), "its tokens is '', no whole number"),
    "the step of another": (lambda path: rewritten(path, step="1"), "it is of step 1, as step_"),
    "weights that are no numbers": (lambda path: rewritten(path, spoilt), "W_E has values that are no numbers"),
    "wrong shapes": (lambda path: rewritten(path, shrunk), "W_E is (96, 12), where a model of it has (97, 12)"),
    "a weight missing": (
        lambda path: rewritten(path, lambda found: {name: found[name] for name in found if name != "W_U"}),
        "W_U is missing, where",
    ),
    "a weight too many": (
        lambda path: rewritten(path, lambda found: {**found, "W_X": torch.zeros(1)}), "W_X is (1,), which no model",
    ),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "is damaged"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged"),
    "text": (lambda path: path.write_text("hello " * 99), "is damaged"),
    "a header without end": (lambda path: path.write_bytes(b"\xff" * 64), "is damaged"),
    "a pickle": (lambda path: torch.save({"W_E": torch.zeros(3)}, path), "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", SNAPSHOTS)
def test_snapshot(run, case):
    damage, wrong = SNAPSHOTS[case]
    path = sorted(run.snapshot_folder.iterdir())[0 if case != "the step of another" else -1]
    if case == "the step of another":
        rewritten(sorted(run.snapshot_folder.iterdir())[0], step="1")
    damage(path)
    with pytest.raises(RunError) as error:
        for snapshot in run.snapshots():
            load_snapshot(run, snapshot)
    said = str(error.value)
    assert str(path) in said and wrong in said and "\n" not in said and "delete" in said


def test_a_damaged_snapshot_ends_a_command_in_one_line(run, capsys):
    rewritten(sorted(run.snapshot_folder.iterdir())[0], shrunk)
    assert "config.yaml: W_E is (96, 12)" in fails(capsys, "score", run.path, "n_examples=8", "n_sequences=2")


def test_a_file_that_may_not_be_read_is_not_damaged(run, monkeypatch):
    path, opened = run.snapshots()[0].path, Path.open

    def refused(file, *arguments):
        if file in (path, run.config_file, run.tokenizer_file, run.meta_file):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *arguments)

    monkeypatch.setattr(Path, "open", refused)
    for read in (run.snapshots, run.config, run.meta, run.tokenizer):
        with pytest.raises(RunError, match="cannot be read: permission denied"):
            read()


@pytest.mark.parametrize("name", ["config_file", "meta_file", "tokenizer_file"])
def test_a_folder_in_the_place_of_a_file(run, name):
    path = getattr(run, name)
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match="cannot be read: is a directory"):
        {"config_file": run.config, "meta_file": run.meta, "tokenizer_file": run.tokenizer}[name]()


# ------------------------------------------------------------------------------------------------ resume state

STATES = {
    "another shape": (lambda t: {**t, "model/W_E": torch.zeros(3, 2)}, {}, "W_E is (3, 2), where"),
    "no weights": (lambda t: {n: v for n, v in t.items() if not n.startswith("model/")}, {}, "is missing, where"),
    "no optimizer": (lambda t: {n: v for n, v in t.items() if n.startswith("model/")}, {}, "no optimizer state of"),
    "a moment of another shape": (
        lambda t: {n: torch.zeros(2, 2) if n.endswith("exp_avg") else v for n, v in t.items()}, {}, "fits no parameter",
    ),
    "a moment of nothing": (lambda t: {**t, "optimizer/W_X/exp_avg": torch.zeros(1)}, {}, "fits no parameter"),
    "something else": (lambda t: {**t, "other": torch.zeros(1)}, {}, "it has other, which is no part of a training"),
    "no numbers": (lambda t: {**t, "model/W_E": t["model/W_E"] * torch.nan}, {}, "values that are no numbers"),
    "no step": (dict, {"step": "soon"}, "its step is 'soon'"),
    "a step that is far": (dict, {"step": "99999"}, "it is of step 99999, and config.yaml has"),
}  # fmt: skip


@pytest.mark.parametrize("case", STATES)
def test_resume_state(run, case, capsys):
    change, notes, wrong = STATES[case]
    tensors, step = run.read_resume()
    write_tensors(run.resume_file, change(tensors), {"step": str(step), **notes})
    run.write_meta(status="interrupted")
    said = fails(capsys, "train", "--resume", run.path)
    assert str(run.resume_file) in said and "delete it, and --resume trains again from step 0" in said
    assert wrong in said


def test_what_is_said_of_a_resume_state_works(run):
    before = run.table_file("by_chain").read_bytes()
    run.resume_file.unlink()
    run.write_meta(status="interrupted")
    assert cli.run(["train", "--resume", str(run.path)]) == 0
    assert run.meta()["status"] == "done" and run.table_file("by_chain").read_bytes() == before


def test_a_state_that_fits_is_loaded(run):
    run.write_meta(status="interrupted")
    state = set_up(run.config(), run, resume=True)
    assert load(run, state.model, state.optimizers, run.read_resume(), state.n_steps) == state.n_steps


# ------------------------------------------------------------------------------------------------ the others


@pytest.mark.parametrize("content", [b"", b"{}", b'{"model": {"type": "BPE"', b"\xff\xfe", b"[]", b"null"])
def test_tokenizer(run, content, capsys):
    run.tokenizer_file.write_bytes(content)
    with pytest.raises(RunError, match=r"tokenizer\.json is damaged"):
        run.tokenizer()
    with pytest.raises(RunError, match=r"tokenizer\.json is damaged"):
        open_source(str(run.path))
    assert "tokenizer.json is damaged" in fails(capsys, "score", run.path)


@pytest.mark.parametrize("text", ["[", "3", "null", "[3]", '[{"name": 3}]', "[" * 100_000, '[{"nome": "x"}]'])
def test_steps_of_a_pipeline(tmp_path, text):
    (tmp_path / "steps.json").write_text(text)
    with pytest.raises(RunError, match=r"steps\.json is damaged: .*delete it, and its steps are done again"):
        read_records(tmp_path)
    rooms.find([tmp_path])


@pytest.mark.parametrize("text", [ALIASES, "hydra: 3", "- 1", "hydra: {job: {name: !!python/name:os.getpid }}", "\t"])
def test_what_hydra_left_in_a_folder(run, text):
    """Is only read for what a page says of it."""
    (run.path / "score" / ".hydra").mkdir(exist_ok=True)
    for name in ("hydra", "config", "overrides"):
        (run.path / "score" / ".hydra" / f"{name}.yaml").write_text(text)
    assert rooms.job_name(run.path / "score") == ""
    rooms.origin("score", run.path / "score", {})
    assert run.folder("score").settings(ScoreConfig).n_examples == 8


# ------------------------------------------------------------------------------------------------ several runs


@pytest.fixture
def runs(trained, tmp_path) -> Path:
    """A whole run and one to be damaged, in one folder."""
    for name in ("whole", "broken"):
        shutil.copytree(trained, tmp_path / "runs" / name)
    return tmp_path / "runs"


def break_table(run: Path, name: str, content: bytes) -> None:
    (run / "score" / "tables" / f"{name}.csv").write_bytes(content)


@pytest.mark.parametrize("damage", [b"", b"step\n1\n", b"step,tokens\n1\n", b"\xff\xfe", None])
def test_compare_names_the_damaged_one_and_shows_the_rest(runs, damage):
    said: list[str] = []
    table = runs / "broken" / "score" / "tables" / "by_chain.csv"
    table.write_bytes(table.read_bytes().splitlines(keepends=True)[0] if damage is None else damage)
    assert [model.name for model in compare.find_models([str(runs)], said.append)] == ["whole"]
    assert said == [next(line for line in said if line.startswith(f"left out: {table} is damaged: "))]


@pytest.mark.parametrize("name", ["config_file", "meta_file"])
def test_compare_leaves_out_a_run_whose_files_are_damaged(runs, name):
    said: list[str] = []
    getattr(RunDir(runs / "broken"), name).write_text("[")
    assert [model.name for model in compare.find_models([str(runs)], said.append)] == ["whole"]
    assert len(said) == 1 and str(runs / "broken") in said[0]


def test_report_decides_on_the_whole_ones(runs):
    claims = load_claims(beside("experiments") / "claims.yaml")
    alone, *_ = report.decided([runs / "whole"], claims[:1], claims)
    break_table(runs / "broken", "phase_change", b"")
    break_table(runs / "broken", "in_context_learning", b"step\n1\n")
    found, *_ = report.decided([runs], claims[:1], claims, damaged_in([runs], COMMANDS))
    assert [one.run for one in found.estimates] == [one.run for one in alone.estimates]
