"""Names, help and flags; a flag is sugar for one override. What a command does is in launch.py, and imported late."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand

from induction_cli.errors import ConfigError

app = typer.Typer(
    help="Induction heads and in-context learning: train small transformers and measure six lines of evidence.",
    epilog="Start with: induction train --layers 2",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Settings = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings; --print-config shows all there are.")
]
RunDirectory = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run, or a folder of runs.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A run, a folder of runs, hf:NAME[@REVISION], hf:NAME@step{0,1,2}, a folder, a .gguf file, or smollm2.",
    ),
]
Runs = Annotated[list[str], typer.Argument(metavar="RUN_DIR... [KEY=VALUE]", help="Runs, then settings.")]
Experiment = Annotated[str | None, typer.Option("--experiment", "-e", metavar="NAME", help="A recipe; see below.")]
Multirun = Annotated[bool, typer.Option("--multirun", "-m", help="Run every combination of KEY=A,B settings.")]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Show all settings, what they mean, and stop.")]


class Command(TyperCommand):
    """A command whose help ends with its examples, recipes and groups."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from induction_cli.command_help import write_help

        super().format_help(ctx, formatter)
        write_help(formatter, called(ctx), COMMANDS[str(self.name)].examples)


def called(context: Any) -> str:
    """The command as conf/ and experiments/ call it."""
    return str(context.command.name).replace("-", "_")


def print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"induction {version('induction')}")
        except PackageNotFoundError:
            print("induction (not installed)")
        raise typer.Exit()


@app.callback()
def induction(
    _version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    pass


# ------------------------------------------------------------------------------------------------ what is typed


def train(
    settings: Settings = None,
    layers: Annotated[int | None, typer.Option(metavar="N", help="Short for model.n_layers=N.")] = None,
    experiment: Experiment = None,
    multirun: Multirun = False,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN_DIR", help="Go on with a run, or all unfinished runs of a folder.")
    ] = None,
    print_config: PrintConfig = False,
) -> None:
    from induction_cli import launch

    if resume:
        if settings or layers is not None or experiment or multirun:
            raise ConfigError("--resume goes on with the settings of the run; it takes no others")
        return launch.resume(resume, print_config)
    sugar = [] if layers is None else [f"model.n_layers={layers}"]
    launch.start("train", sugar + (settings or []), [], experiment, multirun, print_config)


def takes_settings(
    context: typer.Context,
    settings: Settings = None,
    experiment: Experiment = None,
    multirun: Multirun = False,
    print_config: PrintConfig = False,
) -> None:
    from induction_cli import launch

    launch.start(called(context), settings or [], [], experiment, multirun, print_config)


def takes_source(
    context: typer.Context,
    source: Source,
    settings: Settings = None,
    experiment: Experiment = None,
    multirun: Multirun = False,
    print_config: PrintConfig = False,
) -> None:
    from induction_cli import launch

    launch.start(called(context), settings or [], [source], experiment, multirun, print_config)


def takes_runs(
    context: typer.Context,
    arguments: Runs,
    experiment: Experiment = None,
    multirun: Multirun = False,
    print_config: PrintConfig = False,
) -> None:
    from induction_cli import launch

    run_dirs, settings = split_arguments(arguments)
    launch.start(called(context), settings, run_dirs, experiment, multirun, print_config)


def report(arguments: Runs, print_config: PrintConfig = False) -> None:
    from induction_cli import launch

    run_dirs, settings = split_arguments(arguments)
    launch.start("report", settings, run_dirs, print_config=print_config)


def reproduce(settings: Settings = None, experiment: Experiment = None, print_config: PrintConfig = False) -> None:
    from induction_cli import launch

    launch.start("reproduce", settings or [], [], experiment, print_config=print_config)


def export(
    run_dir: RunDirectory,
    to: Annotated[str, typer.Option(metavar="TOOL", help="transformer-lens or huggingface.")],
    snapshot: Annotated[str, typer.Option(metavar="STEP", help="'last' or a step.")] = "last",
) -> None:
    from induction_cli.export import export as export_snapshot
    from induction_cli.runs.process import Interrupted, deferred_signals
    from induction_cli.runs.run_dir import RunDir, relative

    for run in RunDir.find(run_dir):
        for chosen in run.choose_snapshots(snapshot):
            with deferred_signals() as signals:  # all files of it, or none
                written = export_snapshot(run, chosen, to, run.path / "export" / to)
            if signals:
                raise Interrupted(signals[0])
            print(relative(written))


def split_arguments(arguments: list[str]) -> tuple[list[Path], list[str]]:
    """Run directories and overrides: what holds '=' and is no path is an override."""
    overrides = [text for text in arguments if is_override(text)]
    run_dirs = [Path(text) for text in arguments if not is_override(text)]
    for text in overrides:  # a folder of a sweep is called as a setting is: seed=0
        key = text.partition("=")[0]
        named = any(other.startswith(f"{key}=") for other in arguments if not is_override(other))
        if named:
            raise ConfigError(
                f"there is no run directory '{text}'; if it is a setting, write the folders as ./{key}=..."
            )
    if "" in arguments:
        raise ConfigError("there is no run directory ''; write . for this folder")
    if not run_dirs:
        raise ConfigError("there is no RUN_DIR among the arguments; give at least one")
    return run_dirs, overrides


def is_override(text: str) -> bool:
    key = text.partition("=")[0]
    return "=" in text and not os.path.exists(text) and ("/" not in key or key.startswith("hydra/"))


# ------------------------------------------------------------------------------------------------ commands


class About(NamedTuple):
    """A command: what its arguments are, what it does, how it is called for example."""

    arguments: Callable[..., None]
    does: str
    examples: tuple[str, ...]


RUN, SWEEP = "runs/train/2025-01-31_12-00-00", "runs/train/sweep"
COMMANDS = {
    "train": About(
        train,
        "Train a transformer and watch for the phase change.",
        (
            "induction train --layers 2",
            "induction train -m model.n_layers=1,2 seed=0,1,2",
            "induction train data=files \"data.paths=['~/texts']\" model.d_vocab=2048",
            f"induction train --resume {RUN}",
        ),
    ),
    "score": About(
        takes_source,
        "Score every head and the in-context learning of every snapshot.",
        (f"induction score {RUN}", f"induction score {SWEEP} snapshot=last", "induction score smollm2 -e smollm2"),
    ),
    "pertoken-pca": About(
        takes_runs,
        "Draw the paths of runs through the principal components of their per-token losses.",
        (f"induction pertoken-pca {SWEEP}", f"induction pertoken-pca {RUN} n_examples=10_000"),
    ),
    "smear": About(
        takes_settings,
        "Train models with and without smeared keys: does the phase change move?",
        ("induction smear seeds=[0,1]", f"induction smear -e pairs vanilla={SWEEP}"),
    ),
    "ablate": About(
        takes_source,
        "Take heads out of every snapshot, one by one: does in-context learning go?\n\n"
        "A run takes minutes. A pretrained model runs once for each head and window of text: start with -e smollm2, "
        "which has few and short windows.",
        (
            f"induction ablate {RUN}",
            f"induction ablate {RUN} heads='[[1,0],[1,2]]' kinds='[full]' snapshot=last",
            f"induction ablate {RUN} shards=4 shard=0,1,2,3 -m",
            "induction ablate smollm2 -e smollm2",
        ),
    ),
    "generalize": About(
        takes_source,
        "Ask whether the heads that match prefixes also copy text, translate and match abstract patterns.",
        (f"induction generalize {RUN}", "induction generalize smollm2 -e smollm2"),
    ),
    "circuits": About(
        takes_source,
        "Read the heads' weights, and put an ideal induction head in their place.",
        (f"induction circuits {RUN}", f"induction circuits {RUN} -e ideal_head"),
    ),
    "compare": About(
        takes_runs,
        "Lay the tables of many models side by side: does the story hold from small to large?",
        (f"induction compare {SWEEP}", f"induction compare {SWEEP} {RUN} columns=4"),
    ),
    "report": About(
        report,
        "Say for each claim what the tables of these runs show, and put everything on one page.",
        (f"induction report {SWEEP}", f"induction report {RUN} argument=1 explorer_runs=0"),
    ),
    "reproduce": About(
        reproduce,
        "Run all six lines of evidence, from training to one page; started again, go on where it stopped.",
        (
            "induction reproduce",
            "induction reproduce -e laptop",
            f"induction reproduce -e laptop reuse=[{SWEEP}]",
            "induction reproduce -e smoke fresh=true",
        ),
    ),
    "classify": About(
        takes_settings,
        "Train the minimal classification network: in context or from weights, and how suddenly?",
        ("induction classify", "induction classify -m -e data_dependence burstiness=1,2,4 n_classes=32,128,512"),
    ),
    "recall": About(
        takes_settings,
        "Train associative memories on triggers whose followers change, and read them out.",
        ("induction recall", "induction recall -e positions seeds=[0,1,2]"),
    ),
    "export": About(
        export,
        "Write a snapshot so that another tool loads it, with the same logits.",
        (f"induction export {RUN} --to transformer-lens", f"induction export {RUN} --to huggingface --snapshot 1000"),
    ),
}
for name, about in COMMANDS.items():
    app.command(name, cls=Command, help=about.does)(about.arguments)


# ------------------------------------------------------------------------------------------------ the door


def run(arguments: list[str]) -> int:
    """One command from its arguments; the exit status. Every failure is one line, unless INDUCTION_DEBUG is set."""
    try:
        return app(arguments or ["--help"], prog_name="induction", standalone_mode=False) or 0
    except typer.TyperException as error:
        print(f"error: {' '.join(error.format_message().split())}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort) as error:  # what launch.py has not turned into its own line
        print("interrupted", file=sys.stderr)
        return 128 + getattr(error.__cause__ or error, "signal", signal.SIGINT)
    except Exception as error:
        from induction_cli.launch import verdict

        if os.environ.get("INDUCTION_DEBUG"):
            raise
        line, status = verdict(error)
        print(line if status > 128 else f"error: {line}", file=sys.stderr)  # an interruption is no error
        return status


def main() -> None:
    os.environ["MPLBACKEND"] = "agg"  # plots go to files; a notebook hands its own backend on, which needs the notebook
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
