"""Line 5: do the weights implement match-and-copy, and is that mechanism enough?

Weights of each snapshot: OV eigenvalues, QK terms, composition. The last snapshot on held-out text and on random
repeated sequences: which paths carry the loss, and what is kept when induction heads become hard-coded ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from induction_cli.config import CircuitsConfig, EvaluationConfig, TrainConfig, require
from induction_cli.data import CHAIN, open_corpus
from induction_cli.device import choose_device, choose_threads
from induction_cli.evaluation import LENGTH, HeldOut, head_scores, load_snapshot, open_held_out, weight_scores
from induction_cli.measures import paths
from induction_cli.measures.circuits import ov_eigenvalues
from induction_cli.measures.intervals import mean_interval, resamples
from induction_cli.measures.losses import per_token_loss
from induction_cli.model import Transformer
from induction_cli.plots import circuits as plots
from induction_cli.run_dir import RunDir, relative
from induction_cli.tables import composition_rows, head_types, score_rows
from induction_cli.weights import head_weights

Head = tuple[int, int]  # (layer, head)
MAXIMUM_PAIRS = 64  # virtual heads of 2 are told apart up to here; beyond, their order as a whole has to do
SHOWN = ("ideal", "ideal copy", "wrong offset 2")  # of the variants, in the terminal
GATHERED = ("heads", "composition_rank", "qk_separation", "paths", "path_heads", "ideal_head")


def label(heads: Sequence[Head]) -> str:
    return "+".join(f"L{layer}H{head}" for layer, head in heads)


# ------------------------------------------------------------------------------------------------ weights


def head_rows(model: Transformer, scores: dict[str, Tensor], at: dict) -> pd.DataFrame:
    """Rows of heads.csv: prefix matching, previous-token attention and the scores from weights, by head."""
    weights = weight_scores(model, scores["previous_token"].mean(0))
    return score_rows(scores | {measure: score[None] for measure, score in weights.items()}, at)


def eigenvalue_rows(model: Transformer, at: dict) -> pd.DataFrame:
    """Rows of ov_eigenvalues.csv: the non-zero eigenvalues of W_E W_V W_O W_U, the largest first."""
    w, rows = head_weights(model), []
    for layer, (W_V, W_O) in enumerate(zip(w.W_V, w.W_O, strict=True)):
        for head, values in enumerate(ov_eigenvalues(w.W_E, W_V, W_O, w.W_U).cpu()):
            rows += [
                {**at, "layer": layer, "head": head, "index": index, "real": value.real, "imag": value.imag}
                for index, value in enumerate(values[values.abs().argsort(descending=True)].tolist())
            ]
    return pd.DataFrame(rows)


def qk_rows(model: Transformer, previous_token: Tensor, at: dict) -> pd.DataFrame:
    """Rows of qk_terms.csv: the QK term of every head through every earlier head, and that one's previous-token score.

    trace: sum of eigenvalues; weighted: times previous_token, whose sum over earlier heads is qk_trace; statistic: sum
    over sum of moduli, -1 .. 1 (1: the query matches the very token that was moved). previous_token [layer, head].
    """
    w, rows = head_weights(model), []
    for layer in range(1, len(w.W_Q)):
        for earlier in range(layer):
            values = paths.qk_term_eigenvalues(w.W_E, w.W_Q[layer], w.W_K[layer], w.W_V[earlier], w.W_O[earlier])
            trace = values.sum(-1).real.cpu()
            statistic = trace / values.abs().sum(-1).cpu().clamp(min=1e-30)
            rows += [
                {**at, "layer": layer, "head": head, "from_layer": earlier, "from_head": before}
                | {"previous_token": weight, "trace": trace[head, before].item()}
                | {"weighted": weight * trace[head, before].item(), "statistic": statistic[head, before].item()}
                for head in range(len(trace))
                for before, weight in enumerate(previous_token[earlier].tolist())
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
        if earlier.empty:
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


# ------------------------------------------------------------------------------------------------ examples


@dataclass(frozen=True)
class Examples:
    """Independent examples on which a loss is measured; `first` is the first input position whose prediction counts."""

    on: str  # text | repeats
    tokens: Tensor  # [example, pos + 1]
    first: int = 0

    def losses(self, per_token: Callable[[Tensor], Tensor], batch_size: int) -> Tensor:
        """Mean loss of each example in nats, [example]; per_token: tokens [batch, pos + 1] -> losses [batch, pos]."""
        return torch.cat([per_token(batch)[:, self.first :].mean(1).cpu() for batch in self.tokens.split(batch_size)])

    def part(self, rows: slice) -> Examples:
        return replace(self, tokens=self.tokens[rows])


def ratio_interval(above: Tensor, below: Tensor) -> tuple[float, float, float]:
    """mean(above) / mean(below) over units [unit] with its 95% bootstrap interval: (value, low, high).

    nan where the interval of the mean below reaches 0: a share of nothing is no share.
    """
    if not mean_interval(below)[0] > 0:
        return (math.nan,) * 3
    weights = resamples(len(below)).to(below.dtype)
    low, high = torch.quantile((weights @ above) / (weights @ below), torch.tensor([0.025, 0.975]).to(below)).tolist()
    return (above.mean() / below.mean()).item(), low, high


def with_interval(name: str, units: Tensor) -> dict[str, float]:
    low, high = mean_interval(units)
    return {name: units.mean().item(), f"{name}_low": low.item(), f"{name}_high": high.item()}


# ------------------------------------------------------------------------------------------------ paths


@torch.no_grad()
def frozen_run(model: Transformer, tokens: Tensor) -> paths.Frozen:
    """A run of an attention-only model on tokens [batch, pos], ready to be taken apart."""
    require(not model.config.d_mlp, "paths are told apart in attention-only models; MLPs are not linear")
    _, kept = model(tokens, record=("residual", "pattern"))
    heads = (model.config.n_heads, model.config.d_head)
    attentions = [(block.ln_attention, block.attention) for block in model.blocks]
    folded = [norm.weight[:, None] * attention.W_V for norm, attention in attentions]
    shifts = [norm.bias @ attention.W_V for norm, attention in attentions]
    final = model.ln_final
    return paths.Frozen(
        embedding=kept.residual[0],
        pattern=torch.stack(kept.pattern),
        scale=torch.stack([paths.layer_norm_scale(residual, final.eps) for residual in kept.residual]),
        W_V=torch.stack(folded).unflatten(-1, heads).transpose(1, 2),
        b_V=torch.stack(shifts).unflatten(-1, heads),
        W_O=torch.stack([attention.W_O for _, attention in attentions]).unflatten(1, heads),
        W_U=torch.cat((final.weight[:, None] * model.W_U, (final.bias @ model.W_U)[None])),
    )


@torch.no_grad()
def path_losses(model: Transformer, tokens: Tensor) -> dict[tuple, Tensor]:
    """Per-token losses [batch, pos] with some paths only, tokens [batch, pos + 1].

    ('up to', n): every path of order n or less. ('alone', heads): the direct path and these single heads.
    ('without', heads): all paths but these single heads; heads is (layer, head) or, for a whole layer, (layer, None).
    ('virtual', from, head): all paths but this virtual head of 2.
    """
    frozen = frozen_run(model, tokens[:, :-1])

    def losses(residual: Tensor) -> Tensor:
        return per_token_loss(frozen.normalised(residual), frozen.W_U, tokens[:, 1:])

    orders, single = paths.orders(frozen), paths.single_heads(frozen)
    n_layers, n_heads = single.shape[:2]
    whole = torch.stack(orders).sum(0)
    found: dict[tuple, Tensor] = {}
    for order in range(len(orders)):
        found["up to", order] = losses(torch.stack(orders[: order + 1]).sum(0))
    for layer in range(n_layers):
        for head in (None, *range(n_heads)):
            term = single[layer].sum(0) if head is None else single[layer, head]
            found["alone", (layer, head)] = losses(orders[0] + term)
            found["without", (layer, head)] = losses(whole - term)
    if n_heads**2 * math.comb(n_layers, 2) <= MAXIMUM_PAIRS:
        for layer in range(1, n_layers):
            for earlier in range(layer):
                for before, terms in enumerate(paths.virtual_heads(frozen, layer, single[earlier])):
                    for head, term in enumerate(terms):
                        found["virtual", (earlier, before), (layer, head)] = losses(whole - term)
    return found


def path_tables(model: Transformer, examples: Examples, batch_size: int, at: dict) -> dict[str, pd.DataFrame]:
    """paths.csv, path_heads.csv and virtual_heads.csv: what each order, single head and virtual head is worth, in nats.

    Patterns and LayerNorm's divisions are those of the whole model throughout (paths.Frozen). paths: loss with all
    paths up to an order; marginal = what that order took off; share = of all that the model takes off a uniform guess.
    path_heads: alone = what the single head takes off the direct path's loss; marginal = what the loss rises by
    without it. virtual_heads: marginal likewise.
    """
    device, batches = model.W_E.device, []
    for batch in examples.tokens.split(batch_size):
        found = path_losses(model, batch.to(device))
        batches.append({key: losses[:, examples.first :].mean(1).cpu() for key, losses in found.items()})
    loss = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
    n_layers = model.config.n_layers
    uniform = torch.full_like(loss["up to", 0], math.log(model.config.d_vocab))
    full = loss["up to", n_layers]
    at = {**at, "on": examples.on}
    orders, single, virtual = [], [], []
    for order, before in enumerate([uniform, *(loss["up to", order] for order in range(n_layers))]):
        here = loss["up to", order]
        share, low, high = ratio_interval(before - here, uniform - full)
        name = {0: "direct path", 1: "single heads"}.get(order, f"virtual heads of {order}")
        orders.append(
            {**at, "order": order, "path": name, "loss": here.mean().item()}
            | with_interval("marginal", before - here)
            | {"share": share, "share_low": low, "share_high": high}
        )
    for kind, *heads in loss:
        if kind == "alone":
            layer, head = heads[0]
            single.append(
                {**at, "layer": layer, "head": head, "heads": f"layer {layer}" if head is None else label(heads)}
                | with_interval("alone", loss["up to", 0] - loss["alone", heads[0]])
                | with_interval("marginal", loss["without", heads[0]] - full)
            )
        elif kind == "virtual":
            (earlier, before), (layer, head) = heads
            virtual.append(
                {**at, "from_layer": earlier, "from_head": before, "layer": layer, "head": head}
                | with_interval("marginal", loss["virtual", heads[0], heads[1]] - full)
            )
    frames = {"paths": pd.DataFrame(orders), "path_heads": pd.DataFrame(single), "virtual_heads": pd.DataFrame(virtual)}
    return {
        name: frame.astype({"head": "Int64"}) if "head" in frame else frame  # a whole layer has none
        for name, frame in frames.items()
    }


# ------------------------------------------------------------------------------------------------ the ideal head


@dataclass(frozen=True)
class Ideal:
    """A hard-coded head. Pattern: measures.paths.ideal_pattern.

    value: 'own' is the head's own W_V W_O at its own size; 'copy' adds a multiple of the attended token's unembedding
    direction, the multiple fitted on other examples; 'nothing' removes the head.
    """

    variant: str
    offset: int = 1
    match: str = "mean"
    rest: str = "nothing"
    value: str = "own"


REMOVED = Ideal("removed", value="nothing")
IDEAL = Ideal("ideal")  # the one that claim 5e is about
VARIANTS = (
    IDEAL,
    Ideal("ideal, last occurrence", match="last"),
    Ideal("ideal, start if none", rest="start"),
    Ideal("ideal copy", value="copy"),
    Ideal("wrong offset 0", offset=0),
    Ideal("wrong offset 2", offset=2),
    Ideal("wrong offset 2, copy", offset=2, value="copy"),
)


@torch.no_grad()
def losses_when(
    model: Transformer, tokens: Tensor, heads: Sequence[Head], ideal: Ideal = REMOVED, scale: float = 1.0
) -> Tensor:
    """Per-token losses [batch, pos] with `heads` replaced by ideal ones or removed; tokens [batch, pos + 1].

    All that is downstream is recomputed; other heads of the same layer do what they did. scale: factor on what is
    written in place of each head.
    """
    tokens = tokens.to(model.W_E.device)
    inputs, positions = tokens[:, :-1], model.query_key_positions(tokens.shape[1] - 1)
    pattern = scale * paths.ideal_pattern(inputs, ideal.offset, ideal.match, ideal.rest)
    residual = model.embed(inputs)
    for layer, block in enumerate(model.blocks):
        attention, x = block.attention, block.ln_attention(residual)
        z = attention(x, positions)
        chosen = [head for which, head in heads if which == layer]
        for head in chosen:
            z[:, :, head] = pattern @ attention.values(x)[:, head] if ideal.value == "own" else 0
        written = attention.result(z)
        if chosen and ideal.value == "copy":
            directions = paths.copy_directions(model.ln_final.weight[:, None] * model.W_U)
            written = written + len(chosen) * (pattern @ directions[inputs])
        residual = block.after_attention(residual + written)
    return per_token_loss(model.ln_final(residual), model.W_U, tokens[:, 1:])


@torch.no_grad()
def result_norm(model: Transformer, tokens: Tensor, head: Head) -> float:
    """The mean length of what a head writes, on tokens [batch, pos]."""
    _, kept = model(tokens.to(model.W_E.device), record=("z",))
    layer, index = head
    W_O = model.blocks[layer].attention.W_O.unflatten(0, (model.config.n_heads, -1))[index]
    return (kept.z[layer][:, :, index] @ W_O).norm(dim=-1).mean().item()


def golden_section(f: Callable[[float], float], low: float, high: float, steps: int = 10) -> float:
    """Where a function with one valley is lowest."""
    ratio = (math.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    at_a, at_b = f(a), f(b)
    for _ in range(steps):
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - ratio * (high - low)
            at_a = f(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + ratio * (high - low)
            at_b = f(b)
    return (low + high) / 2


def fitted_scale(model: Transformer, examples: Examples, heads: Sequence[Head], ideal: Ideal, batch_size: int) -> float:
    """The factor on an ideal copy with the lowest loss, from 1/20 to 20 times the length of what the heads write."""
    usual = sum(result_norm(model, examples.tokens[:batch_size, :-1], head) for head in heads) / len(heads)

    def loss(log_factor: float) -> float:
        scale = usual * math.exp(log_factor)
        per_token = examples.losses(lambda tokens: losses_when(model, tokens, heads, ideal, scale), batch_size)
        return per_token.mean().item()

    return usual * math.exp(golden_section(loss, -math.log(20), math.log(20)))


def replacements(types: pd.DataFrame, n_controls: int, seed: int) -> list[tuple[str, list[Head], tuple[Ideal, ...]]]:
    """(role, heads, variants): each induction head, all of them at once, and random other heads. types: layer, head,
    head_type. Controls get the plain ideal head and the ideal copy."""
    heads = list(types[["layer", "head"]].itertuples(index=False, name=None))
    induction = [head for head, kind in zip(heads, types.head_type, strict=True) if kind == "induction"]
    others = [head for head in heads if head not in induction]
    drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[:n_controls].tolist()
    plan = [("induction", [head], VARIANTS) for head in induction]
    if len(induction) > 1:
        plan.append(("induction_together", induction, VARIANTS))
    plain = tuple(ideal for ideal in VARIANTS if ideal.variant in ("ideal", "ideal copy"))
    return plan + [("control", [others[i]], plain) for i in sorted(drawn)]


def ideal_rows(
    model: Transformer, examples: Examples, types: pd.DataFrame, config: CircuitsConfig, at: dict
) -> pd.DataFrame:
    """Rows of ideal_head.csv (claim 5e), measured on every second example; the others fit the scale of ideal copies.

    effect = loss without the heads less the model's own (zero ablation, all downstream recomputed); regained = loss
    without them less the loss with ideal ones; share = regained / effect, empty where the effect is not above 0.
    """
    device = model.W_E.device
    fit, test = (replace(examples, tokens=examples.tokens[start::2].to(device)) for start in (0, 1))

    def losses(heads: Sequence[Head], ideal: Ideal = REMOVED, scale: float = 1.0) -> Tensor:
        return test.losses(lambda tokens: losses_when(model, tokens, heads, ideal, scale), config.batch_size)

    clean, rows = losses([]), []
    for role, heads, variants in replacements(types, config.n_controls, config.seed):
        ablated = losses(heads)
        for ideal in variants:
            copies = ideal.value == "copy"
            scale = fitted_scale(model, fit, heads, ideal, config.batch_size) if copies else 1.0
            replaced = losses(heads, ideal, scale)
            share, low, high = ratio_interval(ablated - replaced, ablated - clean)
            rows.append(
                {**at, "on": examples.on, "role": role, "heads": label(heads), **vars(ideal), "scale": scale}
                | {"examples": len(clean), "loss": clean.mean().item(), "loss_ablated": ablated.mean().item()}
                | {"loss_ideal": replaced.mean().item(), **with_interval("effect", ablated - clean)}
                | {
                    **with_interval("regained", ablated - replaced),
                    "share": share,
                    "share_low": low,
                    "share_high": high,
                }
            )
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ the room


def open_examples(trained: TrainConfig, config: CircuitsConfig) -> tuple[list[Examples], HeldOut]:
    """([text, repeats] for losses, the same for head scores, which are those of training and of `score`)."""
    sizes = {"n_examples": config.n_examples * CHAIN, "n_sequences": config.n_examples, "seed": config.seed}
    corpus = open_corpus(trained.data, trained.model.d_vocab)
    held_out = open_held_out(corpus, trained.model.n_ctx, EvaluationConfig(**{**vars(trained.evaluation), **sizes}))
    text, repeats = held_out.windows[::CHAIN], held_out.repeated
    scored = HeldOut(held_out.windows, repeats[: trained.evaluation.n_sequences])
    return [Examples("text", text), Examples("repeats", repeats, first=1 + LENGTH)], scored


def circuits_run(run: RunDir, room: RunDir, config: CircuitsConfig) -> None:
    """All tables and plots of one run into its room; everything is computed before anything is written."""
    trained = run.config()
    require(trained.model.n_layers > 0, f"'{run.path}' has no attention layer; it has no circuits")
    examples, held_out = open_examples(trained, config)
    device = choose_device(config.device)
    parts: dict[str, list[pd.DataFrame]] = {}
    snapshots = run.choose_snapshots(config.snapshot)
    for snapshot in track(snapshots, f"circuits of {run.name}", transient=True, disable=not Console().is_terminal):
        model, at = load_snapshot(run, snapshot, device), {"step": snapshot.step, "tokens": snapshot.tokens}
        scores = head_scores(model, held_out, trained.evaluation.n_sequences)
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
    if not trained.model.d_mlp:
        found = [path_tables(model, some, config.batch_size, at) for some in examples]
        tables |= {name: pd.concat([tables[name] for tables in found], ignore_index=True) for name in found[0]}
    rows = [ideal_rows(model, some, types, config, at) for some in examples]
    tables["ideal_head"] = pd.concat(rows, ignore_index=True)
    for name, table in tables.items():
        room.write_table(name, table)
    draw(room)


def draw(room: RunDir) -> None:
    """The plots of a room, from its tables."""
    heads, composition = room.table("heads"), room.table("composition")
    room.write_plot("ov_eigenvalues", plots.ov_eigenvalues(room.table("ov_eigenvalues"), heads))
    if len(composition):
        room.write_plot("composition", plots.composition(composition, heads))
        room.write_plot("qk_terms", plots.qk_terms(room.table("qk_terms"), heads))
        if composition.step.nunique() > 1:
            room.write_plot("k_composition", plots.composition_over_tokens(composition, heads))
    if room.table_file("paths").exists():
        room.write_plot("paths", plots.paths(room.table("paths")))
        room.write_plot("path_heads", plots.path_heads(room.table("path_heads"), heads))
    ideal = room.table("ideal_head")
    if (ideal.role == "induction").any():
        room.write_plot("ideal_head", plots.ideal_head(ideal))
    room.write_plot("ideal_head_controls", plots.ideal_head_controls(ideal))


def headline(ideal: pd.DataFrame) -> float:
    """Share of their effect on the loss of held-out text that ideal heads keep, all induction heads replaced at once;
    nan where there is none, or its effect is not above 0."""
    found = ideal[(ideal.on == "text") & (ideal.variant == IDEAL.variant) & ideal.role.str.startswith("induction")]
    return float(found.share.iloc[-1]) if len(found) else math.nan  # 'together' comes after the single heads


def show(room: RunDir) -> None:
    """Print what claim 5e asks about, and where the plots are."""
    console, ideal = Console(), room.table("ideal_head")
    shown = Table(title="Share of the effect on the loss that a hard-coded head keeps", title_justify="left")
    for name in ("heads", "on", "replaced by", "effect (nats)", "share kept", "95% interval"):
        shown.add_column(name, justify="left" if name in ("heads", "on", "replaced by") else "right", overflow="fold")
    for row in ideal[(ideal.role != "control") & ideal.variant.isin(SHOWN)].itertuples():
        known = not math.isnan(row.share)
        interval = f"{row.share_low:.2f} to {row.share_high:.2f}" if known else ""
        share = f"{row.share:.2f}" if known else "no effect"
        shown.add_row(row.heads, row.on, row.variant, f"{row.effect:+.3f}", share, interval)
    found = (ideal.role == "induction").any()
    console.print(shown if found else "There are no induction heads at this snapshot; only controls were replaced.")
    console.print(f"plots   {relative(room.path / 'plots')}", soft_wrap=True, highlight=False)


def run(config: CircuitsConfig, out_dir: Path) -> float:
    """The circuits of a run, or of every run of a folder; returns the mean of their headlines (see `headline`)."""
    choose_threads(config.threads)
    config.check()
    runs = RunDir.find(config.run_dir)
    for found in runs:  # all of them before any work
        found.choose_snapshots(config.snapshot)
    rooms = [RunDir(out_dir) if len(runs) == 1 else found.folder("circuits") for found in runs]
    for found, room in zip(runs, rooms, strict=True):
        circuits_run(found, room, config)
        show(room)
    if len(runs) > 1:
        gather(runs, rooms, RunDir(out_dir))
    return float(pd.Series([headline(room.table("ideal_head")) for room in rooms]).mean())


def gather(runs: Sequence[RunDir], rooms: Sequence[RunDir], out: RunDir) -> None:
    """The runs' tables under each other with a `run` column."""
    for name in GATHERED:
        parts = [
            room.table(name).assign(run=found.name)
            for found, room in zip(runs, rooms, strict=True)
            if room.table_file(name).exists()
        ]
        if parts:
            out.write_table(name, pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True))
