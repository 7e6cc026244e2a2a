"""Line 5: do the weights implement match-and-copy, and is that mechanism enough?

Weights of each snapshot: OV eigenvalues, QK terms, composition. The last snapshot on held-out text and on random
repeated sequences: which paths carry the loss, and what is kept when induction heads become hard-coded ones.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track
from torch import Tensor

from induction_cli.config import CircuitsConfig
from induction_cli.device import choose_threads
from induction_cli.evaluation.rows import composition_rows, head_types, score_rows
from induction_cli.evaluation.scores import (
    LENGTH,
    HeldOut,
    head_scores,
    layer_eigenvalues,
    not_applicable,
    weight_scores,
)
from induction_cli.evaluation.sources import Source, revision_row, sources_of, weights_behind
from induction_cli.measures import paths
from induction_cli.mechanism.examples import Examples
from induction_cli.mechanism.ideal_head import IDEAL, ideal_rows, replacements
from induction_cli.mechanism.term_importance import path_tables
from induction_cli.models.protocol import Model
from induction_cli.plots import circuits as plots
from induction_cli.runs.gather import gather
from induction_cli.runs.results import results_folders, writing
from induction_cli.runs.run_dir import RunDir, relative
from induction_cli.terminal import new_table, print_table, say
from induction_cli.words import signed

SHOWN = ("ideal", "ideal copy", "wrong offset 2")  # of the variants, in the terminal
GATHERED = ("heads", "composition_rank", "qk_separation", "paths", "path_heads", "ideal_head")
BATCH = 8  # examples at once for our own models


# ------------------------------------------------------------------------------------------------ weights


def head_rows(model: Model, scores: dict[str, Tensor], at: dict) -> pd.DataFrame:
    """Rows of heads.csv: prefix matching, previous-token attention and the scores from weights, by head."""
    weights = weight_scores(model, scores["previous_token"].mean(0))
    return score_rows(scores | {measure: score[None] for measure, score in weights.items()}, at)


def eigenvalue_rows(model: Model, at: dict) -> pd.DataFrame:
    """Rows of ov_eigenvalues.csv: the non-zero eigenvalues of W_E W_V W_O W_U, the largest first.

    None where the heads' weights are not known.
    """
    rows: list[dict] = []
    for layer, heads in enumerate(() if model.no_weights else layer_eigenvalues(model)):
        for head, values in enumerate(heads):
            rows += [
                {**at, "layer": layer, "head": head, "index": index, "real": value.real, "imag": value.imag}
                for index, value in enumerate(values[values.abs().argsort(descending=True)].tolist())
            ]
    return pd.DataFrame(rows, columns=[*at, "layer", "head", "index", "real", "imag"])


def qk_rows(model: Model, previous_token: Tensor, at: dict) -> pd.DataFrame:
    """Rows of qk_terms.csv: the QK term of every head through every earlier head, and that one's previous-token score.

    trace: sum of eigenvalues; weighted: times previous_token, whose sum over earlier heads is qk_trace; statistic: sum
    over sum of moduli, -1 .. 1 (1: the query matches the very token that was moved). previous_token [layer, head].
    None where W_Q W_K^T alone does not say what attends to what (`Model.no_qk`).
    """
    rows: list[dict] = []
    W_E = model.embedding()
    for layer in range(1, 0 if model.no_qk else model.n_layers):
        w = model.head_weights(layer)
        for earlier in range(layer):
            before = model.head_weights(earlier)
            values = paths.qk_term_eigenvalues(W_E, w.W_Q, w.W_K, before.W_V, before.W_O)
            trace = values.sum(-1).real.cpu()
            statistic = trace / values.abs().sum(-1).cpu().clamp(min=1e-30)
            rows += [
                {**at, "layer": layer, "head": head, "from_layer": earlier, "from_head": from_head}
                | {"previous_token": weight, "trace": trace[head, from_head].item()}
                | {"weighted": weight * trace[head, from_head].item(), "statistic": statistic[head, from_head].item()}
                for head in range(len(trace))
                for from_head, weight in enumerate(previous_token[earlier].tolist())
            ]
    columns = ["from_layer", "from_head", "layer", "head", "previous_token", "trace", "weighted", "statistic"]
    return pd.DataFrame(rows, columns=[*at, *columns])


def rank_rows(composition: pd.DataFrame, heads: pd.DataFrame) -> pd.DataFrame:
    """Rows of composition_rank.csv (claim 5d): each induction head's K-composition with the leading previous-token one.

    That is the head of an earlier layer with the highest previous-token score. rank: among all pairs of heads, 1 is the
    highest; rank_for_head: among this head's own pairs; rank_apart: among all pairs without those of the other
    induction heads, which may take the first places together. All of one snapshot.
    """
    pairs = composition[composition.kind == "K"]
    previous = heads[heads.measure == "previous_token"].set_index(["layer", "head"]).value
    induction = heads.loc[heads.head_type == "induction", ["layer", "head"]].drop_duplicates()
    induction = list(induction.itertuples(index=False, name=None))
    rows = []
    for layer, head in induction:
        earlier = previous[previous.index.get_level_values("layer") < layer]
        if earlier.empty or pairs.empty:
            continue
        leading = earlier.idxmax()
        mine = (pairs.layer == layer) & (pairs["head"] == head)
        found = pairs[mine & (pairs.from_layer == leading[0]) & (pairs.from_head == leading[1])].iloc[0]
        others = pd.Series([pair in induction for pair in zip(pairs.layer, pairs["head"], strict=True)], pairs.index)
        above = pairs.above_baseline > found.above_baseline
        rows.append(
            {"step": found.step, "tokens": found.tokens, "layer": layer, "head": head}
            | {"from_layer": leading[0], "from_head": leading[1], "previous_token": earlier[leading]}
            | {"value": found.value, "above_baseline": found.above_baseline, "rank": 1 + int(above.sum())}
            | {"rank_for_head": 1 + int((above & mine).sum()), "rank_apart": 1 + int((above & (mine | ~others)).sum())}
            | {"pairs": len(pairs)}
        )
    columns = ["step", "tokens", "layer", "head", "from_layer", "from_head", "previous_token", "value"]
    columns += ["above_baseline", "rank", "rank_for_head", "rank_apart", "pairs"]
    return pd.DataFrame(rows, columns=columns)


def separation_rows(heads: pd.DataFrame) -> pd.DataFrame:
    """Rows of qk_separation.csv (claims 5a, 5b): induction heads against the other heads that have the measure.

    higher: share of the pairs (induction head, other head) in which the induction head is higher; 1 is complete.
    """
    rows = []
    for measure in ("copying_eigenvalues", "qk_trace"):
        values = heads[(heads.measure == measure) & heads.value.notna()]
        induction = values[values.head_type == "induction"].value.to_numpy()
        others = values[values.head_type != "induction"].value.to_numpy()
        if len(induction) and len(others):
            rows.append(
                {"measure": measure, "induction_heads": len(induction), "other_heads": len(others)}
                | {"induction_mean": induction.mean(), "induction_lowest": induction.min()}
                | {"others_mean": others.mean(), "others_highest": others.max()}
                | {"higher": (induction[:, None] > others).mean()}
            )
    columns = ["measure", "induction_heads", "other_heads", "induction_mean", "induction_lowest"]
    return pd.DataFrame(rows, columns=[*columns, "others_mean", "others_highest", "higher"])


# ------------------------------------------------------------------------------------------------ the room


def open_examples(source: Source, config: CircuitsConfig) -> tuple[list[Examples], HeldOut]:
    """([text, repeats] for losses, the same for head scores, which are those of training and of `score`)."""
    evaluation, n_ctx = source.evaluation(config), source.n_ctx(config)
    windows = config.n_examples * source.chain
    held_out = source.held_out(replace(evaluation, n_examples=windows, n_sequences=config.n_examples), n_ctx)
    text, repeats = held_out.windows[:: held_out.chain], held_out.repeated
    scored = replace(held_out, repeated=repeats[: evaluation.n_sequences])
    return [Examples("text", text), Examples("repeats", repeats, first=1 + LENGTH)], scored


def circuits_of(source: Source, config: CircuitsConfig) -> dict[str, pd.DataFrame]:
    """All tables of one source."""
    examples, held_out = open_examples(source, config)
    n_sequences = source.evaluation(config).n_sequences
    parts: dict[str, list[pd.DataFrame]] = {}
    revisions: list[dict] = []
    snapshots = source.choose(config.snapshot)
    for snapshot in track(snapshots, f"circuits of {source.name}", transient=True, disable=not Console().is_terminal):
        model, at = source.load(snapshot), source.at(snapshot)
        scores = head_scores(model, held_out, n_sequences)
        if source.room is None:
            revisions.append(revision_row(source, snapshot, model, revisions))
        parts.setdefault("heads", []).append(head_rows(model, scores, at))
        parts.setdefault("composition", []).append(composition_rows(model, at))
    tables = {name: pd.concat(rows, ignore_index=True) for name, rows in parts.items()}
    types = head_types(tables["heads"])
    tables["heads"] = tables["heads"].merge(types, on=["layer", "head"])
    last = {name: table[table.step == snapshots[-1].step] for name, table in tables.items()}
    tables["ov_eigenvalues"] = eigenvalue_rows(model, at)
    tables["qk_terms"] = qk_rows(model, scores["previous_token"].mean(0), at)
    tables["composition_rank"] = rank_rows(last["composition"], last["heads"])
    tables["qk_separation"] = separation_rows(last["heads"])
    batch_size = config.batch_size or model.batch_that_fits(source.n_ctx(config), config.memory_gb, own=BATCH)
    if source.transformer is not None and source.attention_only:
        own = source.transformer(snapshots[-1])
        found = [path_tables(own, some, batch_size, at) for some in examples]
        tables |= {name: pd.concat([tables[name] for tables in found], ignore_index=True) for name in found[0]}
    plan = replacements(types, config.n_controls, config.seed)
    rows = [ideal_rows(model, some, plan, at, batch_size) for some in examples]
    tables["ideal_head"] = pd.concat(rows, ignore_index=True)
    tables["not_applicable"] = left_out(source, model)
    if source.room is None:
        tables["revisions"] = pd.DataFrame(revisions)
    return tables


def left_out(source: Source, model: Model) -> pd.DataFrame:
    """Rows of not_applicable.csv: what this source cannot have, and why."""
    why = not_applicable(model)
    parts = {
        "ov_eigenvalues, V-composition": model.no_weights,
        "qk_terms, Q- and K-composition": why.get("qk_trace", ""),
        "paths, path_heads, virtual_heads": "" if source.attention_only else "MLPs are not linear",
        "ideal copy": model.no_writing,
    }
    return pd.DataFrame([(part, reason) for part, reason in parts.items() if reason], columns=["part", "why"])


def draw(room: RunDir) -> None:
    """The plots of a room, from its tables."""
    heads, composition = room.table("heads"), room.table("composition")
    eigenvalues, terms = room.table("ov_eigenvalues"), room.table("qk_terms")
    if len(eigenvalues):
        room.write_plot("ov_eigenvalues", plots.ov_eigenvalues(eigenvalues, heads))
    if len(terms):
        room.write_plot("qk_terms", plots.qk_terms(terms, heads))
    if composition.above_baseline.notna().any():
        room.write_plot("composition", plots.composition(composition, heads))
        if composition.step.nunique() > 1 and (composition.kind == "K").any():
            room.write_plot("k_composition", plots.composition_over_tokens(composition, heads))
    if room.table_file("paths").exists():
        room.write_plot("paths", plots.paths(room.table("paths")))
        room.write_plot("path_heads", plots.path_heads(room.table("path_heads"), heads))
    ideal = room.table("ideal_head")
    if (ideal.role == "induction").any():
        room.write_plot("ideal_head", plots.ideal_head(ideal))
    if len(ideal):
        room.write_plot("ideal_head_controls", plots.ideal_head_controls(ideal))


def headline(ideal: pd.DataFrame) -> float:
    """Share of their effect on the loss of held-out text that ideal heads keep, all induction heads replaced at once;
    nan where there is none, or its effect is not above 0."""
    found = ideal[(ideal.on == "text") & (ideal.variant == IDEAL.variant) & ideal.role.str.startswith("induction")]
    return float(found.share.iloc[-1]) if len(found) else math.nan  # 'together' comes after the single heads


def show(room: RunDir) -> None:
    """Print what claim 5e asks about, and where the plots are."""
    console, ideal = Console(), room.table("ideal_head")
    names = ("heads", "on", "replaced by", "effect (nats)", "share kept", "95% interval")
    title = "Share of the effect on the loss that a hard-coded head keeps"
    shown = new_table(title, names, left=("heads", "on", "replaced by"))
    for row in ideal[(ideal.role != "control") & ideal.variant.isin(SHOWN)].itertuples():
        known = not math.isnan(row.share)
        interval = f"{row.share_low:.2f} to {row.share_high:.2f}" if known else ""
        share = f"{row.share:.2f}" if known else "no effect"
        shown.add_row(row.heads, row.on, row.variant, signed(row.effect, 3), share, interval)
    found = (ideal.role == "induction").any()
    for row in room.table("not_applicable").itertuples():
        console.print(f"not applicable: {row.part} ({row.why})", highlight=False, soft_wrap=True)
    if found:
        print_table(shown, console)
    else:
        replaced = "only controls were" if len(ideal) else "nothing was"
        say(f"There are no induction heads at this snapshot; {replaced} replaced.", console)
    say(f"plots   {relative(room.path / 'plots')}", console)


def run(config: CircuitsConfig, out_dir: Path) -> float:
    """The circuits of a source, or of every run of a folder; returns the mean of their headlines (see `headline`)."""
    choose_threads(config.threads)
    config.check()
    sources = sources_of(config)
    for source in sources:  # all of them before any work
        source.choose(config.snapshot)
    rooms = results_folders([source.room for source in sources], out_dir, "circuits")
    headlines = []
    for source, room in zip(sources, rooms, strict=True):
        tables = circuits_of(source, config)
        with writing(room, "circuits", config, weights_behind([source], room)) as meta:
            for name, table in tables.items():
                room.write_table(name, table)
            draw(room)
            headlines.append(headline(room.table("ideal_head")))
            meta["headline"] = headlines[-1]
        show(room)
    mean = float(pd.Series(headlines).mean())
    if len(sources) > 1:
        joint, named = RunDir(out_dir), {source.name: room for source, room in zip(sources, rooms, strict=True)}
        with writing(joint, "circuits", config, weights_behind(sources, joint)) as meta:
            gather(named, GATHERED, joint)
            meta["headline"] = mean
    return mean
