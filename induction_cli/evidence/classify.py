"""The minimal classification task (Reddy 2023): when is it solved in context, when from weights, and how suddenly?

Three systems: the network, the induction head reduced to two numbers, and a loss of three nested logits. The first two
see the same sequences in the same order, all seeds trained together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.progress import Progress
from torch import Tensor

from induction_cli.config import ClassifyConfig
from induction_cli.device import choose_threads
from induction_cli.measures import phase_change
from induction_cli.measures.intervals import over_seeds
from induction_cli.minimal import classify_network, nested_logits, replicas, two_parameter
from induction_cli.minimal.classify_data import Batches, Sequences, draw_classes, evaluation_sets, random_stream
from induction_cli.minimal.classify_measures import PROGRESS, measure
from induction_cli.plots import classify as plots
from induction_cli.runs.process import Interrupted, deferred_signals
from induction_cli.runs.results import writing
from induction_cli.runs.run_dir import RunDir, RunError, relative
from induction_cli.runs.tables import Table
from induction_cli.terminal import say

ACCURACIES = ("in_context", "swapped_labels", "in_weights")
# Where the jump is looked for. The two-parameter model has no noise: its right label leads long before it is likely.
JUMPS_IN = {"network": "accuracy", "two_parameter": "probability"}
LEAST_RISE = 0.3  # of in-context accuracy, from which a seed is said to have learned in context
STRETCH = 0.1  # of training, in which a jump must happen
DEFINITIONS = {
    "in_context": "accuracy on classes that no other batch has; guessing gives 1/L, any label of the context B/N",
    "swapped_labels": "accuracy on known classes whose labels are swapped in the context; right is the swapped label",
    "in_weights": "accuracy on known classes that the context does not show",
    "<accuracy>_probability": "mean probability of the right label on the same sequences",
    "item_label_attention": "layer-1 attention of each label to its own item, the token before it; on new classes",
    "target_labels_attention": "layer-2 attention of the target to all labels together; on new classes",
    "target_correct_attention": "layer-2 attention of the target to the labels that are right; on new classes",
    "context_label_accuracy": "share of answers that are some label of the context; on new classes",
    "onset": "step at which a curve first passes half of its final rise; nan where it rises by less than 0.1",
    "relative": "onset / onset of in_context, mean over seeds",
    "rise": "final in-context accuracy (two parameters: probability) less the first",
    "share": f"largest part of the rise within {STRETCH:g} of training; 0 where the rise is below {LEAST_RISE:g}",
    "intervals": "95%, Student's t over seeds",
}


# ------------------------------------------------------------------------------------------------ training


@dataclass
class System:
    """Stacked weights of all seeds, and what a batch and a measurement make of them."""

    name: str
    losses: Callable[[Sequences], Tensor]  # [seed] nats
    step: Callable[[Tensor], None]
    measure: Callable[[], pd.DataFrame]  # a row per seed


class Data:
    """What all systems of a run share, by seed: classes, held-out sequences, batches."""

    def __init__(self, config: ClassifyConfig):
        self.classes = [draw_classes(config, seed) for seed in config.seeds]
        seeds = list(zip(self.classes, config.seeds, strict=True))
        self.label_vectors = torch.stack([classes.label_vectors for classes in self.classes])
        self.held_out = [evaluation_sets(config, classes, config.n_sequences, seed) for classes, seed in seeds]
        self.batches = [Batches(config, classes, seed) for classes, seed in seeds]

    def __call__(self, step: int) -> Sequences:
        return Sequences.stack([batches(step) for batches in self.batches])


def network(config: ClassifyConfig, data: Data) -> System:
    sizes = config.d_token, config.d_content, config.n_labels
    weights = replicas.stack(
        [classify_network.initial_weights(*sizes, random_stream(seed, 3)) for seed in config.seeds]
    )
    optimizer = replicas.SGD(weights, config.learning_rate, decay=config.weight_decay)

    def measured() -> pd.DataFrame:
        each = enumerate(zip(data.held_out, data.classes, strict=True))
        return pd.DataFrame([measure(replicas.one(weights, i), sets, config, classes) for i, (sets, classes) in each])

    def losses(batch: Sequences) -> Tensor:
        return classify_network.losses(weights, batch, data.label_vectors)

    return System("network", losses, optimizer.step, measured)


def two_parameters(config: ClassifyConfig, data: Data) -> System:
    model, sizes = config.two_parameter, (config.d_content, config.n_labels)
    weights = replicas.stack(
        [two_parameter.initial_weights(model, *sizes, random_stream(seed, 4)) for seed in config.seeds]
    )
    optimizer = replicas.SGD(weights, two_parameter.learning_rates(model))
    held_out = {name: Sequences.stack([sets[name] for sets in data.held_out]) for name in data.held_out[0]}

    def measured() -> pd.DataFrame:
        found = two_parameter.measure(weights, held_out, data.label_vectors)
        numbers = {name: weights[name].detach() for name in ("beta_1", "alpha", "beta_2", "xi")}
        return pd.DataFrame({name: values.numpy().copy() for name, values in {**found, **numbers}.items()})

    def losses(batch: Sequences) -> Tensor:
        return two_parameter.losses(weights, batch, data.label_vectors)

    return System("two_parameter", losses, optimizer.step, measured)


def train(config: ClassifyConfig, room: RunDir) -> None:
    """Train every system asked for; accuracy.csv, probability.csv and progress.csv grow at each measurement.

    Raises RunError where a loss is no longer a number, Interrupted after the last whole step.
    """
    data = Data(config)
    made = {"network": network, "two_parameter": two_parameters}
    systems = [made[name](config, data) for name in config.systems if name in made]
    growing = {name: room.growing_table(name) for name in ("accuracy", "probability", "progress", "parameters")}
    with deferred_signals() as signals, Progress(transient=True) as display:
        task = display.add_task(", ".join(system.name.replace("_", " ") for system in systems), total=config.steps)
        steps = iter(replicas.ahead(data, range(config.steps)))
        for step in range(config.steps + 1):
            if step % config.measure_every == 0 or step == config.steps:
                for system in systems:
                    append(growing, system.measure(), {"system": system.name, "seed": config.seeds, "step": step})
                for table in growing.values():
                    table.flush()
                display.update(task, completed=step)
            if signals:
                raise Interrupted(signals[0])
            if step < config.steps:
                batch = next(steps)
                for system in systems:
                    losses = system.losses(batch)
                    if not losses.isfinite().all():
                        raise RunError(f"the loss of the {system.name} is {losses.max().item()} at step {step}; "
                                       "lower its learning_rate")  # fmt: skip
                    system.step(losses)


def append(growing: dict[str, Table], found: pd.DataFrame, at: dict) -> None:
    """One measurement, a row per seed, into the tables it belongs to."""
    for name in ("accuracy", "probability"):
        columns = {f"{kind}_{name}": kind for kind in ACCURACIES}
        growing[name].append(found[list(columns)].rename(columns=columns).assign(**at)[[*at, *ACCURACIES]])
    growing["progress"].append(found[list(PROGRESS)].assign(**at)[[*at, *PROGRESS]])
    if "beta_1" in found:
        numbers = ["beta_1", "alpha", "beta_2", "xi"]
        growing["parameters"].append(found[numbers].assign(**at)[[*at, *numbers]])


# ------------------------------------------------------------------------------------------------ what was seen


def of_system(room: RunDir, name: str, system: str) -> pd.DataFrame:
    table = room.table(name)
    return table[table["system"] == system]


def curves(room: RunDir) -> pd.DataFrame:
    """Every curve of a run: system, seed, step, event, value; in_context is where the jump is looked for."""
    at, parts = ["system", "seed", "step"], []
    for system, kind in JUMPS_IN.items():
        accuracies, progress = (of_system(room, name, system) for name in (kind, "progress"))
        parts.append(accuracies.merge(progress, on=at).melt(at, var_name="event"))
    return pd.concat(parts, ignore_index=True)


def onset_rows(found: pd.DataFrame) -> pd.DataFrame:
    """onsets.csv: when each curve of each seed passes half of its final rise; nan where it hardly rises, or falls."""
    rows = []
    for (system, seed, event), curve in found.groupby(["system", "seed", "event"], sort=False):
        steps, values = curve["step"].to_numpy(), curve["value"].to_numpy()
        rises = values[-max(1, len(values) // 10) :].mean() > values[0]
        rows.append([system, seed, event, phase_change.onset(steps, values) if rises else math.nan])
    return pd.DataFrame(rows, columns=["system", "seed", "event", "step"])


def event_rows(onsets: pd.DataFrame) -> pd.DataFrame:
    """events.csv: the order of events, each with its interval over seeds; `relative` to the jump of the same seed."""
    rows = []
    for system, rows_of_system in onsets.groupby("system", sort=False):
        steps = rows_of_system.pivot(index="seed", columns="event", values="step")
        for event in steps:
            row = {"system": system, "event": event, "seeds": int(steps[event].notna().sum())}
            for name, values in (("step", steps[event]), ("relative", steps[event] / steps["in_context"])):
                row |= over_seeds(values).columns(name)
            rows.append(row)
    return pd.DataFrame(rows).sort_values(["system", "step"], ignore_index=True)


def largest_gain(steps: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """(rise, largest share of it gained within STRETCH of training); curve in steps, linear in between."""
    rise = float(values[-max(1, len(values) // 10) :].mean() - values[0])
    if rise < LEAST_RISE:
        return rise, 0.0
    later = np.interp(steps + STRETCH * (steps[-1] - steps[0]), steps, values)
    return rise, float((later - values).max() / rise)


def jump_rows(found: pd.DataFrame) -> pd.DataFrame:
    """jumps.csv: how suddenly each seed learned in context."""
    jumps = found[found["event"] == "in_context"].groupby(["system", "seed"], sort=False)
    rows = [[*who, *largest_gain(curve["step"].to_numpy(), curve["value"].to_numpy())] for who, curve in jumps]
    return pd.DataFrame(rows, columns=["system", "seed", "rise", "share"])


def final_rows(config: ClassifyConfig, room: RunDir) -> pd.DataFrame:
    """final.csv, what grids are made of: every setting that is a number, then system, seed and the last measurement."""
    at = ["system", "seed", "step"]
    accuracy, probability, progress = (room.table(name) for name in ("accuracy", "probability", "progress"))
    every = accuracy.merge(probability, on=at, suffixes=("", "_probability")).merge(progress, on=at)
    last = every[every["step"] == every["step"].max()].drop(columns="step")
    settings = {f.name: getattr(config, f.name) for f in fields(config)}
    numbers = {name: value for name, value in settings.items() if isinstance(value, int | float) and name != "threads"}
    return pd.concat([pd.DataFrame(numbers, index=last.index), last], axis=1)


def write_trained(config: ClassifyConfig, room: RunDir) -> None:
    """The tables and plots that follow from a finished training."""
    found = curves(room)
    onsets = onset_rows(found)
    room.write_table("onsets", onsets)
    room.write_table("events", event_rows(onsets))
    room.write_table("jumps", jump_rows(found))
    room.write_table("final", final_rows(config, room))
    for system in dict.fromkeys(found["system"]):
        room.write_plot(f"curves_{system}", plots.curves(found[found["system"] == system]))
        onsets, events = (of_system(room, name, system) for name in ("onsets", "events"))
        room.write_plot(f"events_{system}", plots.events(onsets, events))


# ------------------------------------------------------------------------------------------------ grids


def redraw_sweep(sweep: RunDir) -> None:
    """The heatmaps of a sweep's finished jobs, in its own folder. Again where another job has finished meanwhile, so
    that the last one to draw has seen them all."""
    drawn: list[Path] = []
    while (done := sorted(sweep.path.glob("*/tables/final.csv"))) != drawn:
        drawn = done
        grid = pd.concat([RunDir(path.parent.parent).table("final") for path in done], ignore_index=True)
        sweep.write_table("grid", grid)
        varied = [name for name in grid.columns[: grid.columns.get_loc("system")] if grid[name].nunique() > 1]
        for name in varied:
            sweep.write_plot(f"grid_over_{name}", plots.lines_over(grid, name))
        if len(varied) == 2:
            for accuracy in ACCURACIES:
                sweep.write_plot(f"grid_{accuracy}", plots.heatmap(grid, accuracy, *varied))


# ------------------------------------------------------------------------------------------------ nested logits


def nested(config: ClassifyConfig, room: RunDir) -> None:
    """landscape.csv, flow.csv and jump_times.csv: three nested logits, as a picture and against the prediction."""
    model = config.nested_logits
    starts = list(itertools.product(model.beta_1, model.alpha, model.xi))
    beta_1, alpha, xi = torch.tensor(starts, dtype=torch.float64).T
    predicted, closed = (nested_logits.jump_time(model, beta_1, alpha, xi, form) for form in (False, True))
    until = 2 * predicted.max().item()
    clean = nested_logits.flow(model, beta_1, alpha, xi, until)
    room.write_table("flow", flow_rows(clean, nested_logits.shares(model, clean.beta_1, clean.alpha, clean.xi)))
    tables = []
    for seed in config.seeds:
        n_steps = math.ceil(until / model.learning_rate)
        noisy = nested_logits.descend(model, beta_1, alpha, xi, n_steps, model.learning_rate, model.noise, seed)
        order = nested_logits.order(model, noisy)
        tables.append(
            pd.DataFrame(
                {
                    "seed": seed,
                    "beta_1": beta_1,
                    "alpha": alpha,
                    "xi": xi,
                    "predicted": predicted,
                    "closed_form": closed,
                    "simulated": nested_logits.first_passage(noisy.time, noisy.shares(model)[2]),
                    **order,
                }
            )
        )
    room.write_table("jump_times", pd.concat(tables, ignore_index=True))
    room.write_table("landscape", landscape_rows(config, clean))
    room.write_plot("landscape", plots.landscape(room.table("landscape"), room.table("flow")))
    room.write_plot("flow", plots.flow(room.table("flow"), room.table("jump_times")))
    room.write_plot("jump_times", plots.jump_times(room.table("jump_times")))


def flow_rows(path: nested_logits.Trajectory, parts: tuple[Tensor, ...], kept: int = 400) -> pd.DataFrame:
    """start, time, the three numbers, s1, s2, p and q along the gradient flow, at most `kept` points a start."""
    values = torch.stack((path.time, path.beta_1, path.alpha, path.xi, *parts), -1)
    values = values[torch.linspace(0, len(values) - 1, min(kept, len(values))).round().long()].transpose(0, 1)
    columns = ["time", "beta_1", "alpha", "xi", "s1", "s2", "p", "q"]
    rows = [pd.DataFrame(start.numpy(), columns=columns).assign(start=i) for i, start in enumerate(values)]
    return pd.concat(rows, ignore_index=True).drop_duplicates()[["start", *columns]]


def landscape_rows(config: ClassifyConfig, path: nested_logits.Trajectory) -> pd.DataFrame:
    """Loss over beta_1 and alpha at the median xi of where the plateaus end."""
    model, p = config.nested_logits, path.shares(config.nested_logits)[2]
    at_end = (p >= 0.5).float().argmax(0, keepdim=True)
    xi = path.xi.gather(0, at_end).median()
    sides = [
        torch.linspace(values.min().item() - 0.5, values.max().item() + 0.5, model.points, dtype=torch.float64)
        for values in (path.beta_1, path.alpha)
    ]
    beta_1, alpha = torch.meshgrid(*sides, indexing="ij")
    loss = nested_logits.loss(model, beta_1, alpha, xi)
    parts = {"xi": xi.expand_as(loss), "beta_1": beta_1, "alpha": alpha, "loss": loss}
    return pd.DataFrame({name: values.flatten().numpy() for name, values in parts.items()})


# ------------------------------------------------------------------------------------------------ the command


def run(config: ClassifyConfig, out_dir: Path) -> float:
    """Train and measure; returns the mean final in-context accuracy, or of nested logits the mean relative error of the
    predicted time of the jump."""
    config.check()
    choose_threads(config.threads)
    room = RunDir(out_dir)
    with writing(room, "classify", config, {}) as meta:  # tables grow while it trains
        room.write_table("definitions", pd.DataFrame(DEFINITIONS.items(), columns=["name", "definition"]))
        if "nested_logits" in config.systems:
            nested(config, room)
            times = room.table("jump_times")
            meta["headline"] = float((times["predicted"] / times["simulated"] - 1).abs().mean())
        if set(config.systems) & set(JUMPS_IN):
            train(config, room)
            write_trained(config, room)
            meta["headline"] = float(room.table("final")["in_context"].mean())
    if (room.path.parent / "multirun.yaml").exists() and room.table_file("final").exists():  # Hydra's mark of a sweep
        redraw_sweep(RunDir(room.path.parent))
    show(config, room)
    return meta["headline"]


def show(config: ClassifyConfig, room: RunDir) -> None:
    for system in [name for name in config.systems if name in JUMPS_IN]:
        final, jumps = (of_system(room, name, system) for name in ("final", "jumps"))
        means = ", ".join(f"{name.replace('_', ' ')} {final[name].mean():.2f}" for name in ACCURACIES)
        say(f"{system.replace('_', ' ')}, {len(final)} seeds: {means}")
        say(f"  share of the rise within {STRETCH:.0%} of training: {', '.join(f'{x:.2f}' for x in jumps['share'])}")
        for row in of_system(room, "events", system).query("seeds > 0").itertuples():
            interval = f" [{row.step_low:.0f}, {row.step_high:.0f}]" if math.isfinite(row.step_low) else ""
            relative_to_jump = f", {row.relative:.2f} of the jump's" if math.isfinite(row.relative) else ""
            say(f"  {row.event.replace('_', ' '):<26} step {row.step:.0f}{interval}{relative_to_jump}")
    if "nested_logits" in config.systems:
        times = room.table("jump_times")
        error = (times["predicted"] / times["simulated"] - 1).abs()
        say(f"nested logits: jump predicted to within {error.mean():.1%} on average, {error.max():.1%} at worst")
    say(f"plots   {relative(room.path / 'plots')}")
