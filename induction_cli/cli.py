"""Names, help and flags; a flag is sugar for one override. What a command does is in launch.py, and imported late."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from induction_cli.config import ConfigError

app = typer.Typer(
    help="Induction heads and in-context learning: train small transformers and measure six lines of evidence.",
    epilog="Start with: induction train --layers 2",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings of conf/, as model.d_model=64 data=files."),
]
RunDirectory = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run, or a folder of runs.")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A run, a folder of runs, hf:NAME[@REVISION], hf:NAME@step{0,1,2}, a folder, a .gguf file, or smollm2.",
    ),
]
Runs = Annotated[list[str], typer.Argument(metavar="RUN_DIR... [KEY=VALUE]", help="Runs, then settings.")]
Experiment = Annotated[
    str | None, typer.Option("--experiment", "-e", metavar="NAME", help="A recipe of experiments/<command>/.")
]
Multirun = Annotated[bool, typer.Option("--multirun", "-m", help="Run every combination of KEY=A,B settings.")]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Show all settings and stop.")]


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


@app.command()
def train(
    overrides: Overrides = None,
    layers: Annotated[int | None, typer.Option(metavar="N", help="Short for model.n_layers=N.")] = None,
    experiment: Experiment = None,
    multirun: Multirun = False,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN_DIR", help="Go on with a run, or all unfinished runs of a folder.")
    ] = None,
    print_config: PrintConfig = False,
) -> None:
    """Train a transformer and watch for the phase change."""
    from induction_cli import launch

    if resume:
        if overrides or layers is not None or experiment or multirun:
            raise ConfigError("--resume goes on with the settings of the run; it takes no others")
        return launch.resume(resume, print_config)
    sugar = [] if layers is None else [f"model.n_layers={layers}"]
    launch.start("train", sugar + (overrides or []), [], experiment, multirun, print_config)


@app.command()
def score(
    source: Model,
    overrides: Overrides = None,
    experiment: Experiment = None,
    multirun: Multirun = False,
    print_config: PrintConfig = False,
) -> None:
    """Score every head and the in-context learning of every snapshot."""
    from induction_cli import launch

    launch.start("score", overrides or [], [source], experiment, multirun, print_config)


@app.command("pertoken-pca")
def pertoken_pca(
    arguments: Runs,
    experiment: Experiment = None,
    multirun: Multirun = False,
    print_config: PrintConfig = False,
) -> None:
    """Draw the paths of runs through the principal components of their per-token losses."""
    from induction_cli import launch

    run_dirs, overrides = split_arguments(arguments)
    launch.start("pertoken_pca", overrides, run_dirs, experiment, multirun, print_config)


@app.command()
def smear(
    overrides: Overrides = None,
    experiment: Experiment = None,
    multirun: Multirun = False,
    print_config: PrintConfig = False,
) -> None:
    """Train models with and without smeared keys: does the phase change move?"""
    from induction_cli import launch

    launch.start("smear", overrides or [], [], experiment, multirun, print_config)


@app.command()
def ablate(
    source: Model,
    overrides: Overrides = None,
    experiment: Experiment = None,
    multirun: Multirun = False,
    print_config: PrintConfig = False,
) -> None:
    """Take heads out of every snapshot, one by one: does in-context learning go?

    A run takes minutes. A pretrained model runs once for each head and window of text: start with -e smollm2, which
    has few and short windows.
    """
    from induction_cli import launch

    launch.start("ablate", overrides or [], [source], experiment, multirun, print_config)


@app.command()
def generalize(
    source: Model,
    overrides: Overrides = None,
    experiment: Experiment = None,
    multirun: Multirun = False,
    print_config: PrintConfig = False,
) -> None:
    """Ask whether the heads that match prefixes also copy text, translate and match abstract patterns."""
    from induction_cli import launch

    launch.start("generalize", overrides or [], [source], experiment, multirun, print_config)


@app.command()
def circuits(
    source: Model,
    overrides: Overrides = None,
    experiment: Experiment = None,
    multirun: Multirun = False,
    print_config: PrintConfig = False,
) -> None:
    """Read the heads' weights, and put an ideal induction head in their place."""
    from induction_cli import launch

    launch.start("circuits", overrides or [], [source], experiment, multirun, print_config)


@app.command()
def compare(
    arguments: Runs,
    experiment: Experiment = None,
    multirun: Multirun = False,
    print_config: PrintConfig = False,
) -> None:
    """Lay the tables of many models side by side: does the story hold from small to large?"""
    from induction_cli import launch

    run_dirs, overrides = split_arguments(arguments)
    launch.start("compare", overrides, run_dirs, experiment, multirun, print_config)


@app.command()
def report(arguments: Runs, print_config: PrintConfig = False) -> None:
    """Say for each claim what the tables of these runs show, and put everything on one page."""
    from induction_cli import launch

    run_dirs, overrides = split_arguments(arguments)
    launch.start("report", overrides, run_dirs, print_config=print_config)


@app.command()
def reproduce(
    overrides: Overrides = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", "-e", metavar="NAME", help="smoke, quick (default), laptop or paper.")
    ] = None,
    print_config: PrintConfig = False,
) -> None:
    """Run all six lines of evidence, from training to one page; started again, go on where it stopped."""
    from induction_cli import launch

    launch.start("reproduce", overrides or [], [], experiment, print_config=print_config)


@app.command()
def classify(
    overrides: Overrides = None,
    experiment: Experiment = None,
    multirun: Multirun = False,
    print_config: PrintConfig = False,
) -> None:
    """Train the minimal classification network: in context or from weights, and how suddenly?"""
    from induction_cli import launch

    launch.start("classify", overrides or [], [], experiment, multirun, print_config)


@app.command()
def recall(
    overrides: Overrides = None,
    experiment: Experiment = None,
    multirun: Multirun = False,
    print_config: PrintConfig = False,
) -> None:
    """Train associative memories on triggers whose followers change, and read them out."""
    from induction_cli import launch

    launch.start("recall", overrides or [], [], experiment, multirun, print_config)


@app.command()
def export(
    run_dir: RunDirectory,
    to: Annotated[str, typer.Option(metavar="TOOL", help="transformer-lens or huggingface.")],
    snapshot: Annotated[str, typer.Option(metavar="STEP", help="'last' or a step.")] = "last",
) -> None:
    """Write a snapshot so that another tool loads it, with the same logits."""
    from induction_cli.export import export as export_snapshot
    from induction_cli.runs.run_dir import RunDir, relative

    for run in RunDir.find(run_dir):
        for chosen in run.choose_snapshots(snapshot):
            print(relative(export_snapshot(run, chosen, to, run.path / "export" / to)))


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
    if not run_dirs:
        raise ConfigError("there is no RUN_DIR among the arguments; give at least one")
    return run_dirs, overrides


def is_override(text: str) -> bool:
    key = text.partition("=")[0]
    return "=" in text and not os.path.exists(text) and ("/" not in key or key.startswith("hydra/"))


def run(arguments: list[str]) -> int:
    """One command from its arguments; the exit status. Every failure is one line, unless INDUCTION_DEBUG is set."""
    try:
        return app(arguments or ["--help"], prog_name="induction", standalone_mode=False) or 0
    except typer.TyperException as error:
        print(f"error: {' '.join(error.format_message().split())}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        from induction_cli.launch import verdict

        if os.environ.get("INDUCTION_DEBUG"):
            raise
        line, status = verdict(error)
        print(line if status > 128 else f"error: {line}", file=sys.stderr)  # an interruption is no error
        return status


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
