"""The only file that knows Hydra: what was typed goes in; a plain dataclass and a Path come out, to the command's room.

Everything is composed and checked first (Hydra's compose API), so a mistake creates nothing. Then the public
`hydra.main` runs it, for its run directories, sweeps and launchers.
"""

from __future__ import annotations

import difflib
import itertools
import logging
import math
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from induction_cli import config as schemas
from induction_cli.config import ConfigError, require
from induction_cli.config.documented import as_yaml
from induction_cli.config.settings import settings_of
from induction_cli.runs.files import RunError, beside, disk_full, is_full, said_plainly

log = logging.getLogger(__name__)

TAKE_MODELS = {"score", "ablate", "generalize", "circuits"}  # commands whose RUN_DIR may be any model source
BEGIN_A_FOLDER = {"train", "reproduce"}  # commands whose settings hold from the start, for what goes on
ASKED = ".hydra.asked"  # where Hydra writes until there are results
GO_ON = {"reproduce"}  # commands that go on with a folder of theirs
HYDRA = ("hydra.run.dir", "hydra.sweep.dir", "hydra/launcher", "hydra.launcher.*", "hydra/sweeper", "hydra.sweeper.*")
MOST_JOBS = 10_000  # of a sweep


class SweepFailed(Exception):
    """Some jobs of a sweep failed; each has said why."""


class Stopped(Exception):
    """Ctrl-C or SIGTERM; `code` is the exit status. An ordinary exception, as Typer would flatten KeyboardInterrupt."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


# ------------------------------------------------------------------------------------------------ where things are


def schema_of(command: str) -> type:
    """One name runs through the tree: pertoken_pca has PertokenPcaConfig, conf/pertoken_pca.yaml and its own room."""
    found: Any = getattr(schemas, command.title().replace("_", "") + "Config", None)
    require(found is not None, f"'{command}' is not built yet")
    return found


def room_of(command: str) -> Any:
    return import_module("induction_cli.training" if command == "train" else f"induction_cli.evidence.{command}")


def fresh_folder(parent: Path) -> Path:
    """A new folder named after the time; a number keeps apart those that start in the same second."""
    parent.mkdir(parents=True, exist_ok=True)
    stem = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for name in itertools.chain([stem], (f"{stem}_{i}" for i in itertools.count(2))):
        try:
            (parent / name).mkdir()
            return parent / name
        except FileExistsError:
            continue
    raise AssertionError("unreachable")


def shown(path: Path) -> str:
    return shlex.quote(os.path.relpath(path))


# ------------------------------------------------------------------------------------------------ settings and mistakes


def wanted(schema: type, prefix: str = "") -> dict[str, str]:
    """Every dotted key of a schema, and in words what it wants."""
    found = {}
    for known in settings_of(schema):
        found[prefix + known.name] = known.wanted
        if known.is_group:
            found |= wanted(known.kind, f"{prefix}{known.name}.")
    return found


def no_setting(key: str, known: dict[str, str]) -> str:
    """What to say of a key that is not in the schema: the same last name elsewhere, else the most similar key."""
    same = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    near = difflib.get_close_matches(key, same, 1, 0.0) or difflib.get_close_matches(key, known, 1)
    return f"no setting '{key}'; " + (f"did you mean '{near[0]}'?" if near else "--print-config shows all there are")


def no_option(group: str, name: object) -> str:
    options = sorted(path.stem for path in (beside("conf") / group).glob("*.yaml"))
    return f"no {group} '{name}'; there are {', '.join(options)}"


def no_run_dir(text: str, schema: type) -> str:
    """How a message begins where runs and settings are named side by side: a run's name may hold '=' too."""
    return f"there is no run directory '{text}', and " if "run_dirs" in wanted(schema) else ""


def one_line(text: object) -> str:
    return " ".join(str(text).split())


def explain(error: Exception, schema: type) -> str:
    """One line for what Hydra or OmegaConf refused: the key, what was given, what would do."""
    known, text = wanted(schema), str(error)
    where = re.match(r"In '(.+?)': ", text)  # a recipe or a file of conf/
    prefix = f"in {where[1]}: " if where else ""
    if isinstance(error, OverrideParseException):
        return f"cannot read '{error.override}'; write KEY=VALUE, and quote text with special signs: \"key='a,b'\""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"no {group} '{name}'; there are {', '.join(error.options or ['none'])}"
    cause: BaseException | None = error
    while cause and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__ or cause.__context__
    full_key = re.search(r"full_key: (\S+)", f"{cause or ''}\n{text}")
    if full_key is None:
        return one_line(text)
    key = full_key[1].partition("[")[0]
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) or f"'{key.rpartition('.')[2]}' not in" in text:
        return prefix + no_setting(key, known)
    if isinstance(cause, MissingMandatoryValue):
        return f"{prefix}{key} must be given: {key}=..."
    if isinstance(cause, ValidationError) and key in known:
        value = "null" if cause.value is None else cause.value
        return f"{prefix}{key} is '{value}'; it must be {known[key]}"
    return f"{prefix}{key}: {one_line(str(cause or text).partition('full_key')[0])}"


def verdict(error: Exception) -> tuple[str, int]:
    """The one line and the exit status of a failure: 2 where the request was wrong, 1 where the run went wrong."""
    if isinstance(error, ConfigError):
        return one_line(error), 2
    if isinstance(error, Stopped):
        return one_line(error), error.code
    if isinstance(error, RunError | SweepFailed):
        return one_line(error), 1
    if isinstance(error, OSError) and is_full(error):
        return one_line(disk_full(Path(error.filename or "."))), 1
    if isinstance(error, OSError) and error.filename is not None:
        return one_line(f"{error.strerror}: {error.filename}"), 1
    return one_line(f"{type(error).__name__}: {error} (INDUCTION_DEBUG=1 shows where)"), 1


# ------------------------------------------------------------------------------------------------ composing


def quote(value: object) -> str:
    """Text as one value of Hydra's grammar, whatever is in it."""
    # no interpolation, whatever precedes it
    literal = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", str(value))
    return QuotedString(literal, Quote.single).with_quotes()


def read_overrides(overrides: list[str], schema: type, multirun: bool) -> list[Override]:
    """Parse what was typed; refuse what has no setting, comes twice, or sweeps without being asked to."""
    parser = OverridesParser.create()
    parsed: list[Override] = []
    for text in overrides:
        try:
            override = parser.parse_overrides([text])[0]
        except OverrideParseException as error:
            raise ConfigError(no_run_dir(text, schema) + explain(error, schema)) from error
        except ValueError:  # a whole number of thousands of digits
            raise ConfigError(f"cannot read '{text[:40]}...'; it is too long for a number")
        key = override.key_or_group
        require(all(key != other.key_or_group for other in parsed), f"{key} is given twice")
        if not key.startswith("hydra"):
            require(key in wanted(schema), no_run_dir(text, schema) + no_setting(key, wanted(schema)))
        refuse_what_cannot_be_set(override, text, multirun)
        sweeps = override.is_sweep_override() and not multirun
        require(not sweeps, f"'{text}' asks for several runs; add -m, or write a list as {key}=[...]")
        parsed.append(override)
    return parsed


def refuse_what_cannot_be_set(override: Override, text: str, multirun: bool) -> None:
    """Raise ConfigError where Hydra would do something else than was meant, or say so without naming the key."""
    key, value = override.key_or_group, override.value()
    if key.startswith("hydra"):
        allowed = any(key == name or (name.endswith("*") and key.startswith(name[:-1])) for name in HYDRA)
        require(allowed, f"{key} cannot be set here; of Hydra's own settings there are {', '.join(HYDRA)}")
        other = "hydra.run.dir" if multirun else "hydra.sweep.dir"
        instead = "hydra.sweep.dir takes its place" if multirun else "without it, hydra.run.dir says where a run goes"
        require(key != other, f"{other} is for commands {'without' if multirun else 'with'} -m; {instead}")
        require(not key.endswith(".dir") or value not in (None, ""), f"{key} is empty; it must be a folder")
    elif override.is_add():
        raise ConfigError(f"'{text}' adds a setting that is there; write it without +")
    elif override.is_delete():
        raise ConfigError(f"'{text}' takes {key} away, which a command needs; {key}=... changes it")
    elif override.package is not None:
        raise ConfigError(f"'{text}' moves {key} to another place; write {key}=...")
    elif (beside("conf") / key).is_dir():
        if not override.is_sweep_override():
            require(isinstance(value, str | QuotedString), no_option(key, "null" if value is None else value))
    elif override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        raise ConfigError(
            f"'{text}' lists files of conf/{key}/, and there are none; write {key}=A,B or {key}=range(A,B)"
        )


def recipe_overrides(command: str, name: str | None) -> list[str]:
    """Lay experiments/<command>/<name>.yaml over conf/."""
    if name is None:
        return []
    name, folder = name.removeprefix(f"{command}/"), beside("experiments") / command
    recipes = sorted(path.stem for path in folder.glob("*.yaml"))
    require(name in recipes, f"no recipe '{name}' for {command}; there are {', '.join(recipes) or 'none'}")
    return [f"hydra.searchpath=[{quote(f'file://{folder.parent}')}]", f"+{command}={quote(name)}"]


def run_dir_overrides(schema: type, run_dirs: Sequence[Path | str]) -> list[str]:
    if any(setting.name == "run_dirs" for setting in fields(schema)):
        return [f"run_dirs=[{','.join(map(quote, run_dirs))}]"]
    return [f"run_dir={quote(path)}" for path in run_dirs]


def each_job(overrides: list[Override]) -> list[list[str]]:
    """The overrides of each job of a sweep, one at least. Values that only Hydra can list (intervals) are left out."""
    axes = []
    for override in overrides:
        if not override.is_sweep_override():
            axes.append([str(override.input_line)])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            try:
                axes.append([f"{key}={value}" for value in swept_values(override)])
            except (TypeError, ValueError) as error:  # a range of steps of 0, a sort of what has no order
                raise ConfigError(f"'{override.input_line}' cannot be swept over: {one_line(error)}")
            require(bool(axes[-1]), f"'{override.input_line}' names no value, so there is nothing to run")
        many = math.prod(map(len, axes)) > MOST_JOBS
        require(not many, f"'{override.input_line}' makes more than {MOST_JOBS} runs; sweep over fewer values")
    return [list(job) for job in itertools.product(*axes)]


def swept_values(override: Override) -> list[str]:
    """At most one more than there may be jobs."""
    value = override.value()
    if isinstance(value, Glob):
        return value.filter(sorted(path.stem for path in (beside("conf") / override.key_or_group).glob("*.yaml")))
    return list(itertools.islice(override.sweep_string_iterator(), MOST_JOBS + 1))


def refuse_twins(jobs: list[list[str]], configs: list[Any]) -> None:
    """Raise ConfigError where two jobs of a sweep have the same settings, and so would write into the same folder."""
    seen: dict[str, list[str]] = {}
    for job, config in zip(jobs, configs, strict=True):
        twin = seen.setdefault(repr(config), job)
        require(twin is job, f"the sweep has one run twice: {' '.join(job)}")


def plain(composed: DictConfig) -> Any:
    """The dataclass that leaves this file."""
    config: Any = OmegaConf.to_object(composed)
    if hasattr(config, "check"):
        config.check()
    return config


def compose(command: str, jobs: list[list[str]]) -> list[Any]:
    """The checked configuration of every job. Raises ConfigError; touches nothing on disk."""
    schema = schema_of(command)
    ConfigStore.instance().store(f"{command}_schema", schema)
    try:
        with hydra.initialize_config_dir(str(beside("conf")), version_base="1.3"):
            return [plain(hydra.compose(command, job)) for job in jobs]
    except ConfigError:
        raise
    except Exception as error:  # nothing of ours but check() runs in there: whatever it is, the settings caused it
        raise ConfigError(explain(error, schema)) from error


def show(configs: list[Any]) -> None:
    """As YAML, one document a job."""
    print("---\n".join(map(as_yaml, configs)), end="")


# ------------------------------------------------------------------------------------------------ running


@dataclass
class Launch:
    """What became of the jobs this process ran. Jobs in other processes (joblib, submitit) have none and raise."""

    process: int = field(default_factory=os.getpid)
    several: bool = False
    failures: list[tuple[str, Exception]] = field(default_factory=list)

    def failed(self, name: str, error: Exception) -> None:
        log.info("failed", exc_info=error)  # the trace, for the log file only
        self.failures.append((name, error))
        if self.several:  # said at once: the other jobs may take hours
            print(f"error: {name}: {verdict(error)[0]}", file=sys.stderr)

    def conclude(self, n_jobs: int) -> None:
        if self.failures and not self.several:
            raise self.failures[0][1]
        if self.failures:
            names = ", ".join(name for name, _ in self.failures)
            raise SweepFailed(f"{len(self.failures)} of {n_jobs} runs failed: {names}")


current: Launch | None = None


def is_foreseen(error: Exception) -> bool:
    """Whether its one line says all there is to say; the trace of any other is wanted, and stands in the log."""
    return isinstance(error, ConfigError | RunError | OSError)


class LogFile(logging.FileHandler):
    """Where the disk is full, the command says so; that its log cannot be written too need not be said."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not (isinstance(error, OSError) and is_full(error)):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):  # what could not be written before cannot be now
            super().close()


def log_to(path: Path) -> None:
    """Everything to the run's log file, warnings to the console."""
    console = logging.StreamHandler()
    console.setLevel(logging.WARNING)
    handlers: list[logging.Handler] = [LogFile(path, encoding="utf-8"), console]
    layout = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=layout, handlers=handlers, force=True)
    logging.getLogger("hydra").setLevel(logging.WARNING)  # it announces a sweep's next job in the log of the last


def discard_empty(out_dir: Path, command: str) -> None:
    """Remove the folder of a run or sweep in which nothing happened: only Hydra, the lock and the log were there.

    Where results of before are there, only what was asked for in vain goes, and models in it that were not begun.
    """
    for lock in list(out_dir.glob("*/.lock")):
        if [path.name for path in lock.parent.iterdir()] == [".lock"]:
            shutil.rmtree(lock.parent)
    nothing = {".hydra", ASKED, ".lock", f"{command}.log", "multirun.yaml"}
    for folder in sorted((path for path in out_dir.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):  # where something is in it
            folder.rmdir()
    if out_dir.is_dir() and nothing.issuperset(path.name for path in out_dir.iterdir()):
        shutil.rmtree(out_dir)
        with suppress(OSError):  # where others stand in it
            os.removedirs(os.path.relpath(out_dir.parent))
    shutil.rmtree(out_dir / ASKED, ignore_errors=True)


def keep_asked(out_dir: Path) -> None:
    """What was asked for now stands beside its results; until then, what was asked for those before it did."""
    if (asked := out_dir / ASKED).is_dir():
        shutil.rmtree(out_dir / ".hydra", ignore_errors=True)
        asked.rename(out_dir / ".hydra")


def job(composed: DictConfig) -> float | None:
    """Hydra's task: one run of one command. At module level and without state, so that any launcher can send it."""
    settings = HydraConfig.get()
    from induction_cli.runs.process import Interrupted  # brings torch: not for a typo

    command, out_dir = str(settings.job.name), Path(settings.runtime.output_dir)
    log_to(out_dir / f"{command}.log")
    try:
        headline = room_of(command).run(plain(composed), out_dir)
        keep_asked(out_dir)
        return headline
    except Exception as error:
        if current is None or current.process != os.getpid():
            raise
        current.failed(out_dir.name, error)
        if is_foreseen(error):
            discard_empty(out_dir, command)
        return None
    except KeyboardInterrupt as error:
        if isinstance(error, Interrupted):  # its results were written
            keep_asked(out_dir)
        discard_empty(out_dir, command)
        raise


@contextmanager
def arguments(argv: list[str]) -> Iterator[None]:
    """hydra.main reads sys.argv. HYDRA_FULL_ERROR lets exceptions come out instead of ending the process."""
    before, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = argv, "1"
    try:
        yield
    finally:
        sys.argv = before
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


@contextmanager
def stoppable(run_dir: Path, command: str = "train") -> Iterator[None]:
    """Turn an interruption into one line that says how to go on, and the status the shell expects."""
    try:
        yield
    except KeyboardInterrupt as error:
        number = getattr(error, "signal", None)  # process.Interrupted: the run is saved
        how = {"train": f"induction train --resume {shown(run_dir)}", "reproduce": "the same command again"}
        hint = f"; to go on: {how[command]}" if number and command in how else ""
        raise Stopped(f"interrupted{hint}", 128 + (number or signal.SIGINT)) from error


def is_model(command: str, name: Path | str) -> bool:
    """Whether a command that takes any model was given one that is no run directory."""
    if command not in TAKE_MODELS:
        return False
    from induction_cli.evaluation.sources import is_source  # brings torch: not for a typo

    return is_source(str(name))


def choose_folder(
    command: str, config: Any, run_dirs: Sequence[Path | str], overrides: list[Override], multirun: bool
) -> Path:
    """Inside the run that is analysed, else runs/<command>/<time>; hydra.run.dir and hydra.sweep.dir say otherwise.

    A command that can go on with what it did before says where (see evidence/reproduce.py).
    """
    setting = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    asked = [str(override.value()) for override in overrides if override.key_or_group == setting]
    if asked:
        chosen = Path(asked[0])
        if command in GO_ON and (chosen / "steps.json").exists():
            return chosen
        require(not chosen.exists() or not any(chosen.iterdir()), f"{setting} is '{chosen}', which is not empty")
        return chosen
    if len(run_dirs) == 1 and not is_model(command, run_dirs[0]):
        return Path(run_dirs[0]) / command
    parent = Path("runs") / command
    begun = room_of(command).folder_to_go_on_with(config, parent) if command in GO_ON else None
    return begun or fresh_folder(parent)


def hydra_settings(command: str, out_dir: Path, overrides: list[Override]) -> list[str]:
    """Where a run goes and how its sweep's folders are called: after what differs between them."""
    swept = [override for override in overrides if override.is_sweep_override()]
    same = [override.key_or_group for override in overrides if override not in swept]
    one_folder = not any("/" in str(override.input_line) for override in swept)
    return [
        f"hydra.job.name={command}",
        f"hydra.run.dir={quote(out_dir)}",
        f"hydra.sweep.dir={quote(out_dir)}",
        "hydra.sweep.subdir=${hydra.job.override_dirname}" if one_folder else "hydra.sweep.subdir=${hydra.job.num}",
        f"hydra.job.config.override_dirname.exclude_keys=[{','.join([command, *map(quote, same)])}]",
        *([] if command in BEGIN_A_FOLDER else [f"hydra.output_subdir={ASKED}"]),
        "hydra/job_logging=none",  # log_to does it, for resumed runs too
        "hydra/hydra_logging=none",
    ]


def start(
    command: str,
    overrides: list[str],
    run_dirs: Sequence[Path | str] | None = None,
    experiment: str | None = None,
    multirun: bool = False,
    print_config: bool = False,
) -> None:
    """Run a command: compose and check every job, then hand them to Hydra. Prints where the results are."""
    schema, run_dirs = schema_of(command), run_dirs or []
    for path in run_dirs:
        require(path != "", "there is no run directory ''; write . for this folder")
        require(Path(path).is_dir() or is_model(command, path), f"there is no run directory '{path}'")
    recipe = recipe_overrides(command, experiment)
    parsed = read_overrides([*run_dir_overrides(schema, run_dirs), *overrides], schema, multirun)
    jobs = each_job(parsed)
    configs = compose(command, [[*recipe, *job_overrides] for job_overrides in jobs])
    refuse_twins(jobs, configs)
    if print_config:
        return show(configs)
    out_dir = choose_folder(command, configs[0], run_dirs, parsed, multirun)
    require("${" not in str(out_dir.absolute()), f"Hydra cannot write to '{out_dir}', as '${{' is in its name")
    typed = [str(override.input_line) for override in parsed]
    done = Launch(several=multirun)
    try:
        with said_plainly(out_dir):
            run_jobs(command, out_dir, [*hydra_settings(command, out_dir, parsed), *recipe, *typed], done)
    except RunError:
        discard_empty(out_dir, command)
        raise
    except (HydraException, OmegaConfBaseException) as error:
        discard_empty(out_dir, command)
        raise ConfigError(explain(error, schema)) from error
    if multirun and done.failures:
        discard_empty(out_dir, command)
    done.conclude(len(configs))
    print(shown(out_dir))


def run_jobs(command: str, out_dir: Path, overrides: list[str], done: Launch) -> None:
    """Let Hydra run every job; those that fail are noted in `done`."""
    global current
    run = hydra.main(version_base="1.3", config_path=str(beside("conf")), config_name=command)(job)
    current = done
    try:
        with stoppable(out_dir, command), arguments(["induction", *["--multirun"] * done.several, "--", *overrides]):
            run()
    finally:
        current = None


def resume(path: Path, print_config: bool = False) -> None:
    """Go on with a run, or with every unfinished run of a folder, under the settings stored there."""
    require(path.is_dir(), f"there is no run directory '{path}'")
    from induction_cli.runs.run_dir import RunDir

    runs = RunDir.find(path)
    if print_config:
        return show([run.config() for run in runs])
    unfinished = [run for run in runs if run.meta().get("status") != "done"]
    done = Launch(several=len(runs) > 1)
    for run in unfinished:
        log_to(run.path / "train.log")
        try:
            with stoppable(path):
                room_of("train").run(run.config(), run.path, resume=True)
        except Stopped:
            raise
        except Exception as error:
            done.failed(run.name, error)
    done.conclude(len(unfinished))
    print(shown(path) if unfinished else f"{shown(path)} is done already")
