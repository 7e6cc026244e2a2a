"""Line 4: do induction heads also copy text, translate and match abstract patterns, and does the model need them?

Every head of the last snapshot, each behaviour as a score over many generated prompts (prompts.py) with a control.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from induction_cli.config import GeneralizeConfig
from induction_cli.device import choose_threads
from induction_cli.evaluation.sources import Moment, Source, sources_of, weights_behind
from induction_cli.generality.few_shot import Heads, Tasks, label, removal_rows
from induction_cli.generality.probes import (
    DEFINITIONS,
    Behaviour,
    Probe,
    behaviour,
    copying_behaviour,
    eigenvalue_behaviour,
    literal_probe,
    pattern_probe,
    pattern_prompts,
    prefix_probe,
    translation_probe,
)
from induction_cli.generality.prompts import CATEGORIES
from induction_cli.measures.controls import against_layer, corrected_99, corrected_errors
from induction_cli.measures.head_types import INDUCTION, induction
from induction_cli.measures.intervals import correlation, mean_interval
from induction_cli.models.protocol import Model
from induction_cli.page.viewer import Example, attention_page
from induction_cli.plots import generalize as plots
from induction_cli.plots.style import in_words
from induction_cli.runs.gather import gather
from induction_cli.runs.results import results_folders, writing
from induction_cli.runs.run_dir import RunDir, relative
from induction_cli.terminal import new_table, print_table, say

log = logging.getLogger(__name__)

LITERAL = 0.2  # share of lines with tokens in common above which the pattern task is said to be no test of abstraction
BEST_AT_IT, BEST_AT_PREFIXES = 5, 3  # heads on the page, by behaviour
LONGEST = 256  # tokens; few prompts have more
GATHERED = ("head_behaviours", "correlations", "few_shot_effect", "claims")
FUZZY = ("literal_copying", "translation", "pattern_matching")


# ------------------------------------------------------------------------------------------------ tables


def behaviour_rows(behaviours: dict[str, Behaviour], model: Model) -> pd.DataFrame:
    """Rows of head_behaviours.csv: value with its 95% interval over units, control, and the bar `control_99`.

    error: the chance that any head is as far above its control, so corrected for all heads of the model.
    """
    nan = torch.full((model.n_layers, model.n_heads), torch.nan)
    index = pd.MultiIndex.from_product([range(model.n_layers), range(model.n_heads)], names=["layer", "head"])
    parts = []
    for name, found in behaviours.items():
        value, low, high, control, bar, error = nan, nan, nan, nan, nan, nan
        if found.value is not None:
            value, (low, high) = found.value.mean(0), mean_interval(found.value)
        if found.value is not None and found.control is not None:
            control = found.control.mean(0)
            excess = found.value - found.control
            bar, error = control + corrected_99(excess), corrected_errors(excess)
        columns = {"value": value, "low": low, "high": high, "control": control, "control_99": bar, "error": error}
        part = pd.DataFrame({column: each.flatten().numpy() for column, each in columns.items()}, index).reset_index()
        part.insert(2, "behaviour", name)
        n = 0 if found.value is None else len(found.value)
        parts.append(part.assign(excess=part.value - part.control, above=part.value > part.control_99, units=n))
        parts[-1]["note"] = found.note
    return pd.concat(parts, ignore_index=True)


def wide(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """One row a head, one column a behaviour."""
    return table.pivot(index=["layer", "head"], columns="behaviour", values=column)


def induction_heads(table: pd.DataFrame) -> Heads:
    """The induction heads (measures.head_types), the one that matches prefixes best first."""
    value = wide(table, "value")
    chosen = value[induction(value.prefix_matching.to_numpy(), value.copying_eigenvalues.to_numpy())]
    chosen = chosen.sort_values("prefix_matching", ascending=False)
    return [(int(layer), int(head)) for layer, head in chosen.index]


def head_type(table: pd.DataFrame, induction: Heads) -> list[str]:
    heads = zip(table.layer, table["head"], strict=True)
    return ["induction" if head in induction else "other" for head in heads]


def other_heads(table: pd.DataFrame, removed: Heads) -> Heads:
    """Those to draw at random: prefix matching below INDUCTION. One that matches prefixes but does not copy is none."""
    below = wide(table, "value").prefix_matching < INDUCTION
    return [(int(layer), int(head)) for layer, head in below[below].index if (layer, head) not in removed]


def correlation_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of correlations.csv: over heads, prefix matching and copying against each fuzzier behaviour; 95% intervals.

    column: 'value' or 'excess' over the control, of both. overlap: heads among the ten best of both.
    """
    rows = []
    for column in ("value", "excess"):
        heads = wide(table, column)
        for x in ("prefix_matching", "copying"):
            for y in FUZZY:
                both = heads[[x, y]].dropna()
                a, b = (torch.tensor(both[name].to_numpy()) for name in (x, y))
                best = [set(both[name].nlargest(10).index) for name in (x, y)]
                overlap = len(best[0] & best[1]) if len(both) > 20 else math.nan
                for kind in ("spearman", "pearson"):
                    found = correlation(a, b, ranks=kind == "spearman")
                    rows.append([x, y, column, kind, len(both), *found, overlap])
    return pd.DataFrame(
        rows, columns=["x", "y", "column", "kind", "heads", "correlation", "low", "high", "overlap_of_10"]
    )


def definition_rows(config: GeneralizeConfig, behaviours: dict[str, Behaviour]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"behaviour": name, "definition": DEFINITIONS[name][0], "control": DEFINITIONS[name][1]}
            | {"units": 0 if found.value is None else len(found.value), "seed": config.seed, "note": found.note}
            for name, found in behaviours.items()
        ]
    )


# ------------------------------------------------------------------------------------------------ nulls

RANDOM, SHUFFLED = "random weights", "shuffled heads"


def null_models(model: Model, seed: int) -> dict[str, Model]:
    """{null: model that should show nothing}; no shuffled heads where single heads' weights are not known."""
    found = {RANDOM: model.untrained(seed)}
    return found if model.no_weights else found | {SHUFFLED: model.shuffled(seed)}


def null_rows(model: Model, probes: dict[str, Probe], config: GeneralizeConfig) -> pd.DataFrame:
    """Rows of null_behaviours.csv: as head_behaviours.csv, of the nulls."""
    parts = []
    for null, made in null_models(model, config.seed).items():
        found = {name: behaviour(made, probe, config, f"{in_words(name)}, {null}") for name, probe in probes.items()}
        table = behaviour_rows(found | {"copying_eigenvalues": eigenvalue_behaviour(made)}, made)
        parts.append(table.assign(head_type=head_type(table, induction_heads(table)), model=null))
    return pd.concat(parts, ignore_index=True)


# ------------------------------------------------------------------------------------------------ claims


@dataclass(frozen=True)
class Findings:
    """What the claims of line 4 are judged by.

    heads: head_behaviours.csv; few_shot and effects: few_shot.csv and few_shot_effect.csv. nulls:
    null_behaviours.csv. literal_share: of the pattern task's pairs of lines of one category, those that
    share a token. Such pairs do not count in 4c; in 4d they do, and where there are many the task is no test of
    abstraction.
    """

    behaviours: dict[str, Behaviour]
    heads: pd.DataFrame
    few_shot: pd.DataFrame
    effects: pd.DataFrame
    nulls: pd.DataFrame
    literal_share: float


CLAIMS = ["claim", "statistic", "value", "low", "high", "remark"]  # columns of claims.csv
NOTHING = [math.nan, math.nan, math.nan]


def claim_rows(found: Findings) -> pd.DataFrame:
    """Rows of claims.csv: the statistics of claims 4a to 4d and 6d; empty, with a remark, where there is none."""
    chosen = induction_heads(found.heads)
    rows = [literal_row(found, chosen)]
    rows += [above_control_row(found, chosen, claim, name) for claim, name in FUZZIER.items()]
    rows += pattern_rows(found) + weight_rows(found, chosen) + count_rows(found.nulls)
    return pd.DataFrame(rows, columns=CLAIMS)


FUZZIER = {"4b": "translation", "4c": "pattern_matching"}


def without_interval(value: float) -> list[float]:
    return [value, math.nan, math.nan]


def literal_row(found: Findings, chosen: Heads) -> list:
    """4a: literal copying of the induction heads less that of the other heads of their layers."""
    statistic, literal = "literal_copying_less_other_heads_of_the_layers", found.behaviours["literal_copying"]
    if not chosen or literal.value is None:
        return ["4a", statistic, *NOTHING, literal.note or "no induction heads"]
    difference = against_layer(literal.value, chosen)
    low, high = mean_interval(difference)
    return ["4a", statistic, float(difference.mean()), float(low), float(high), f"{len(chosen)} induction heads"]


def above_control_row(found: Findings, chosen: Heads, claim: str, name: str) -> list:
    """4b, 4c: how many induction heads show a fuzzier behaviour beyond its control."""
    statistic, heads = f"{name}_induction_heads_above_control", found.heads[found.heads.behaviour == name]
    above = heads[heads.above].sort_values("excess", ascending=False).set_index(["layer", "head"])
    why_not = found.behaviours[name].note
    if not why_not and not chosen:
        why_not = f"no induction heads; of all heads {len(above)}"
    if why_not:
        return [claim, statistic, *NOTHING, why_not]
    hits = [head for head in above.index if head in chosen]
    remark = f"of {len(chosen)}; of all heads {len(above)}; {' '.join(map(label, hits[:10]))}"
    return [claim, statistic, *without_interval(len(hits)), remark]


def pattern_rows(found: Findings) -> list[list]:
    """4d: how well the whole model does the pattern task, and what it loses without the induction heads."""
    rows: list[list] = []
    task = found.few_shot[found.few_shot.task == "pattern_accuracy"]
    for whole in task[task.removed == "none"].itertuples():
        remark = "chance 0.25"
        if whole.low <= 1 / len(CATEGORIES):
            remark += "; not above it: nothing to lose"
        rows.append(["4d", "pattern_accuracy", whole.value, whole.low, whole.high, remark])
    lost = found.effects[found.effects.task == "pattern_accuracy"]
    for each in lost.itertuples():
        remark = f"{each.n_heads} heads, beyond {each.beyond:.0%} of {each.draws:.0f} draws"
        if found.literal_share > LITERAL:
            remark += f"; not abstract here: {found.literal_share:.0%} of lines alike share tokens"
        statistic = f"pattern_accuracy_lost_beyond_{each.against}"
        rows.append(["4d", statistic, each.difference, each.low, each.high, remark])
    if lost.empty:
        rows.append(["4d", "pattern_accuracy_lost_beyond_random", *NOTHING, "nothing was removed"])
    return rows


def weight_rows(found: Findings, chosen: Heads) -> list[list]:
    """6d: how many induction heads the model has, and how many heads match prefixes with random weights."""
    eigenvalues = found.heads[found.heads.behaviour == "copying_eigenvalues"].value
    remark = " ".join(map(label, chosen[:10])) if eigenvalues.notna().any() else "copying is not known"
    statistic, by_chance = "induction_heads", "induction_heads_with_random_weights"
    random = found.nulls[(found.nulls.model == RANDOM) & (found.nulls.behaviour == "prefix_matching")].value.dropna()
    if random.empty:
        return [["6d", statistic, *NOTHING, remark], ["6d", by_chance, *NOTHING, "prefix matching alone"]]
    numbers = without_interval(len(chosen)) if eigenvalues.notna().any() else NOTHING
    matching = without_interval(int((random >= INDUCTION).sum()))
    return [
        ["6d", statistic, *numbers, remark],
        ["6d", by_chance, *matching, f"prefix matching alone; best {random.max():.3f}"],
    ]


def count_rows(nulls: pd.DataFrame) -> list[list]:
    """4a to 4c, 6d: how many heads of each null are above the control of each behaviour."""
    rows: list[list] = []
    behaviours = {"4a": "literal_copying", **FUZZIER, "6d": "prefix_matching"}
    for claim, name in behaviours.items():
        for null, heads in nulls[nulls.behaviour == name].dropna(subset="control_99").groupby("model"):
            statistic = f"{name}_heads_above_control_with_{str(null).replace(' ', '_')}"
            remark = f"of {len(heads)}; {(heads.head_type == 'induction').sum()} induction heads"
            rows.append([claim, statistic, *without_interval(int(heads.above.sum())), remark])
    return rows


def source_row(source: Source, model: Model, at: Moment) -> pd.DataFrame:
    """The row of source.csv: what was measured. seed: of a run's training; empty for a pretrained model."""
    row = {"source": source.name, "pretrained": source.room is None}
    row |= {"seed": source.room.config().seed if source.room else None, "step": at.step, "tokens": at.tokens}
    row |= {name: getattr(model, name) for name in ("n_layers", "n_heads", "d_model", "d_vocab")}
    return pd.DataFrame([row]).astype({"seed": "Int64", "tokens": "Int64"})


# ------------------------------------------------------------------------------------------------ the page


@torch.no_grad()
def examples(source: Source, model: Model, probes: dict[str, Probe], table: pd.DataFrame) -> list[Example]:
    """The first prompt of each behaviour with the heads best at it, and those best at prefix matching."""
    found = []
    heads = wide(table, "excess")
    for name, probe in probes.items():
        if probe.note or source.text is None:
            continue
        prompt = probe.prompts[0]
        best = [*heads[name].nlargest(BEST_AT_IT).index, *heads.prefix_matching.nlargest(BEST_AT_PREFIXES).index]
        chosen = list(dict.fromkeys((int(layer), int(head)) for layer, head in best))
        _, kept = model(
            torch.tensor([prompt.tokens]), record={"pattern": lambda pattern: (pattern[0] * 255).round().byte().cpu()}
        )
        values = table.set_index(["behaviour", "layer", "head"])
        remarks = []
        for layer, head in chosen:
            mine, first = values.loc[(name, layer, head)], values.loc[("prefix_matching", layer, head)]
            scores = f"over all prompts {in_words(name)} {mine.value:.2f}, control {mine.control:.2f}"
            if name != "prefix_matching":
                scores += f"; prefix matching {first.value:.2f}"
            remarks.append((f"{label((layer, head))} {mine.value:.2f}", scores))
        patterns = torch.stack([kept.pattern[layer][head] for layer, head in chosen]).float() / 255
        targets = [(query, key) for query, key, _ in prompt.targets]
        title, remark = in_words(name).capitalize(), f"{DEFINITIONS[name][0]}. Control: {DEFINITIONS[name][1]}."
        found.append(Example(title, remark, source.text.pieces(prompt.tokens), remarks, patterns, targets))
    return found


# ------------------------------------------------------------------------------------------------ the room


def measure(source: Source, config: GeneralizeConfig) -> tuple[dict[str, pd.DataFrame], str]:
    """(all tables, the page) of one source."""
    began = time.perf_counter()
    at = source.choose(config.snapshot)[-1]
    model = source.load(at)
    config = replace(config, batch_size=config.batch_size or model.batch_that_fits(LONGEST, config.memory_gb, own=8))
    prompts, choices = pattern_prompts(source, config)
    probes = {
        "prefix_matching": prefix_probe(source, model, config),
        "literal_copying": literal_probe(source, model, config),
        "translation": translation_probe(source, model, config),
        "pattern_matching": pattern_probe(prompts, source, model),
    }
    behaviours = {name: behaviour(model, probe, config, in_words(name)) for name, probe in probes.items()}
    behaviours["copying"] = copying_behaviour(source, model, config)
    behaviours["copying_eigenvalues"] = eigenvalue_behaviour(model)
    behaviours = {name: behaviours[name] for name in DEFINITIONS}
    heads = behaviour_rows(behaviours, model)
    induction = induction_heads(heads)
    heads["head_type"] = head_type(heads, induction)
    log.info(
        "%s: %d heads scored in %.0f s",
        source.name,
        heads.groupby(["layer", "head"]).ngroups,
        time.perf_counter() - began,
    )
    nulls = null_rows(model, probes, config)
    literal = probes["literal_copying"]
    doubled = None if literal.note else torch.tensor([prompt.tokens for prompt in literal.prompts])
    asked = [] if probes["pattern_matching"].note else prompts
    removed = induction[: config.top_k]
    tasks = Tasks(asked, choices, doubled, config.batch_size)
    few_shot, effects = removal_rows(model, tasks, removed, other_heads(heads, removed), config)
    literal_share = float(np.mean([each.literal for each in prompts])) if prompts else 0.0
    tables = {
        "source": source_row(source, model, at),
        "head_behaviours": heads,
        "null_behaviours": nulls,
        "definitions": definition_rows(config, behaviours),
        "correlations": correlation_rows(heads),
        "few_shot": few_shot,
        "few_shot_effect": effects,
        "claims": claim_rows(Findings(behaviours, heads, few_shot, effects, nulls, literal_share)),
    }
    page = attention_page(f"What the heads of {source.name} attend to", examples(source, model, probes, heads))
    log.info("%s: all in %.0f s", source.name, time.perf_counter() - began)
    return tables, page


def draw(room: RunDir) -> None:
    """The plots of a room, from its tables."""
    heads, few_shot = room.table("head_behaviours"), room.table("few_shot")
    if heads[heads.behaviour.isin(FUZZY)].value.notna().any():
        room.write_plot("head_behaviours", plots.head_behaviours(heads, room.table("correlations")))
    if len(few_shot):
        room.write_plot("few_shot", plots.few_shot(few_shot))


def show(room: RunDir, name: str) -> None:
    """Print the statistics and where the page is."""
    console = Console()
    names = ("claim", "statistic", "value", "95% interval", "remark")
    table = new_table(f"Generalisation of {name}", names, left=[name for name in names if name != "value"])
    for row in room.table("claims").itertuples():
        interval = f"{row.low:+.3f} to {row.high:+.3f}" if pd.notna(row.low) else ""
        table.add_row(
            row.claim, in_words(row.statistic), f"{row.value:.3g}" if pd.notna(row.value) else "-", interval, row.remark
        )
    print_table(table, console)
    say(f"page    {relative(room.path / 'attention.html')}", console)


def run(config: GeneralizeConfig, out_dir: Path) -> float:
    """Measure a source, or every run of a folder; returns the rank correlation over heads of prefix matching and
    pattern matching (less controls) of the last source; nan where patterns do not apply."""
    config.check()
    choose_threads(config.threads)
    sources = sources_of(config)
    rooms = results_folders([source.room for source in sources], out_dir, "generalize")
    headline = math.nan
    for source, room in zip(sources, rooms, strict=True):
        tables, page = measure(source, config)
        headline = headline_of(tables["correlations"])
        with writing(room, "generalize", config, weights_behind([source], room)) as meta:
            for name, table in tables.items():
                room.write_table(name, table)
            draw(room)
            room.write_page("attention", page)
            meta["headline"] = headline
        show(room, source.name)
    if len(sources) > 1:
        joint, named = RunDir(out_dir), {source.name: room for source, room in zip(sources, rooms, strict=True)}
        with writing(joint, "generalize", config, weights_behind(sources, joint)) as meta:
            gather(named, GATHERED, joint)
            meta["headline"] = headline
    return headline


def headline_of(correlations: pd.DataFrame) -> float:
    found = correlations.set_index(["x", "y", "column", "kind"]).correlation
    return float(found["prefix_matching", "pattern_matching", "excess", "spearman"])
