"""Circuits: a hand-built induction model with known answers, identities, and slow references."""

import math

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import D_VOCAB, KINDS, N_HEADS, N_POS, small_config
from hand_built import BETA, induction_model
from hand_made import write_table
from matplotlib.figure import Figure

from induction_cli.config import CircuitsConfig, ConfigError, DataConfig, EvaluationConfig, TrainConfig
from induction_cli.data import open_corpus
from induction_cli.evaluation.rows import composition_rows, head_types
from induction_cli.evaluation.scores import HeldOut, head_scores, repeated_tokens
from induction_cli.evidence import circuits
from induction_cli.measures import paths
from induction_cli.measures.circuits import ov_eigenvalues, qk_trace
from induction_cli.mechanism import ideal_head
from induction_cli.mechanism.examples import Examples, ratio
from induction_cli.mechanism.ideal_head import IDEAL, Ideal, ideal_rows, losses_when, replacements
from induction_cli.mechanism.term_importance import frozen_run, path_losses, path_tables
from induction_cli.models.protocol import Patch
from induction_cli.models.transformer import Transformer
from induction_cli.plots import circuits as plots
from induction_cli.runs.run_dir import RunDir

pytestmark = pytest.mark.slow

VOCABULARY, AT = 61, {"step": 7, "tokens": 1001}
ATTENTION_ONLY = {name: changes for name, changes in KINDS.items() if not changes.get("d_mlp")}


def shaken(**changes) -> Transformer:
    """A small model with every parameter away from its initial value, LayerNorms included."""
    model = Transformer(small_config(**changes), seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def built() -> Transformer:
    return induction_model(VOCABULARY)


@pytest.fixture(scope="module")
def repeats() -> Examples:
    tokens = repeated_tokens(torch.ones(VOCABULARY, dtype=torch.long), n_sequences=8)
    return Examples("repeats", tokens, first=26)


@pytest.fixture(scope="module")
def heads(built, repeats) -> pd.DataFrame:
    """heads.csv of the hand-built model; repeated sequences stand in for text."""
    scores = head_scores(built, HeldOut(repeats.tokens.repeat_interleave(8, 0), repeats.tokens), 5)
    rows = circuits.head_rows(built, scores, AT)
    return rows.merge(head_types(rows), on=["layer", "head"])


@pytest.fixture(scope="module")
def ideal(built, repeats, heads) -> pd.DataFrame:
    types = heads[["layer", "head", "head_type"]].drop_duplicates()
    return ideal_rows(built, repeats, replacements(types, n_controls=3), AT)


def losses(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")


# ------------------------------------------------------------------------------------------------ weights


def test_the_hand_built_heads_are_recognised(heads):
    kinds = heads.groupby(["layer", "head"]).head_type.first().to_dict()
    assert kinds == {(0, 0): "previous_token", (0, 1): "other", (1, 0): "induction", (1, 1): "other"}


def test_ov_eigenvalues_of_the_hand_built_head(built):
    """W_E W_V W_O W_U = 10 (I - J / d_model)^2 by centring: 10 in every direction but the common one."""
    w, d_model = built.head_weights(1), built.d_model
    values = ov_eigenvalues(built.embedding(), w.W_V, w.W_O, built.unembedding())[0]
    expected = [10.0] * (VOCABULARY - 1) + [10 * (1 - VOCABULARY / d_model) ** 2]
    expected = torch.tensor(sorted(expected + [0.0] * (built.config.d_head - VOCABULARY)))
    assert torch.allclose(values.real.sort().values, expected, atol=1e-4)
    assert values.imag.abs().max() < 1e-4
    table = circuits.eigenvalue_rows(built, AT)
    assert list(table.columns) == ["step", "tokens", "layer", "head", "index", "real", "imag"]
    assert len(table) == 4 * built.config.d_head


def test_qk_term_of_the_hand_built_heads(built):
    """W_E W_Q W_K^T (W_V W_O)^T W_E^T = BETA (I - J / d_model)^3, through the previous-token head alone."""
    first, second, share = built.head_weights(0), built.head_weights(1), 1 - VOCABULARY / built.d_model
    values = paths.qk_term_eigenvalues(built.embedding(), second.W_Q, second.W_K, first.W_V, first.W_O)
    assert values.shape == (2, 2, built.config.d_head)
    assert values[0, 0].real.sum().item() == pytest.approx(BETA * (VOCABULARY - 1 + share**3), rel=1e-4)
    assert values[0, 1].abs().max() == values[1].abs().max() == 0


def test_qk_terms_add_up_to_the_trace():
    model = shaken()
    first, second, W_E = model.head_weights(0), model.head_weights(1), model.embedding()
    weights = torch.rand(2, N_HEADS, generator=torch.Generator().manual_seed(2))
    table = circuits.qk_rows(model, weights, AT)
    trace = qk_trace(W_E, second.W_Q, second.W_K, first.W_V, first.W_O, weights[0])
    assert torch.allclose(torch.tensor(table.groupby("head").weighted.sum().to_numpy()).float(), trace, rtol=1e-3)
    product = W_E @ second.W_Q[2] @ second.W_K[2].T @ (first.W_V[1] @ first.W_O[1]).T @ W_E.T
    row = table[(table["head"] == 2) & (table.from_head == 1)].iloc[0]
    assert row.trace == pytest.approx(product.trace().item(), rel=1e-3)


def test_k_composition_with_the_previous_token_head_is_first(built, heads):
    table = circuits.rank_rows(composition_rows(built, AT), heads)
    (row,) = table.to_dict("records")
    assert (row["layer"], row["head"], row["from_layer"], row["from_head"]) == (1, 0, 0, 0)
    assert (row["rank"], row["rank_for_head"], row["rank_apart"], row["pairs"]) == (1, 1, 1, 4)


def test_ranks_count_the_pairs_above():
    """Two induction heads take the first two places; apart from the other, each is first."""
    pairs = [(0, 1, 0.9), (0, 0, 0.8), (1, 1, 0.1), (1, 0, 0.2), (0, 2, 0.5), (1, 2, 0.3)]
    composition = pd.DataFrame(
        [
            {**AT, "kind": "K", "from_layer": 0, "from_head": before, "layer": 1, "head": head}
            | {"value": value, "above_baseline": value}
            for before, head, value in pairs
        ]
    )
    kinds = {(0, 0): "previous_token", (0, 1): "other", (1, 0): "induction", (1, 1): "induction", (1, 2): "other"}
    heads = pd.DataFrame(
        [
            {"layer": layer, "head": head, "measure": "previous_token", "value": 0.9 - head, "head_type": kind}
            for (layer, head), kind in kinds.items()
        ]
    )
    table = circuits.rank_rows(composition, heads).set_index("head")
    assert table["rank"].to_dict() == {0: 2, 1: 1}
    assert table.rank_apart.to_dict() == table.rank_for_head.to_dict() == {0: 1, 1: 1}


def test_separation(heads):
    """Among the hand-built heads only induction has a QK trace and copies."""
    table = circuits.separation_rows(heads).set_index("measure")
    assert table.higher.to_dict() == {"copying_eigenvalues": 1, "qk_trace": 1}
    assert table.induction_lowest["copying_eigenvalues"] == pytest.approx(1, abs=1e-4)
    assert table.others_highest["qk_trace"] == 0 and table.other_heads["qk_trace"] == 1


# ------------------------------------------------------------------------------------------------ paths


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("kind", ATTENTION_ONLY)
def test_terms_add_up_to_the_models_logits(kind, n_layers, tokens):
    """With patterns and LayerNorm's divisions as in the full run, shifts and gains included."""
    model = shaken(**ATTENTION_ONLY[kind], n_layers=n_layers)
    frozen = frozen_run(model, tokens)
    orders = paths.orders(frozen)
    assert len(orders) == n_layers + 1
    logits = frozen.normalised(torch.stack(orders).sum(0)) @ frozen.W_U
    assert torch.allclose(logits, model(tokens), atol=1e-4)


def test_orders_are_those_of_the_framework_paper(tokens):
    """Its procedure: run with every head's output as saved in the run before (0 in the first), save, repeat."""
    frozen = frozen_run(shaken(n_layers=3), tokens)
    orders, saved = paths.orders(frozen), [torch.zeros_like(frozen.embedding)] * 3
    for order in range(4):
        residuals = [frozen.embedding + sum(saved[:layer]) for layer in range(4)]
        assert torch.allclose(residuals[3], torch.stack(orders[: order + 1]).sum(0), atol=1e-4)
        saved = [frozen.written(layer, residuals[layer], shift=True).sum(0) for layer in range(3)]


def test_virtual_heads_add_up_to_the_second_order(tokens):
    frozen = frozen_run(shaken(n_layers=3), tokens)
    single = paths.single_heads(frozen)
    pairs = [paths.virtual_heads(frozen, layer, single[earlier]) for layer in range(3) for earlier in range(layer)]
    assert pairs[0].shape[:2] == (N_HEADS, N_HEADS)
    assert torch.allclose(torch.stack([p.sum((0, 1)) for p in pairs]).sum(0), paths.orders(frozen)[2], atol=1e-4)


def test_path_losses_by_definition():
    model = shaken()
    tokens = torch.randint(D_VOCAB, (2, N_POS), generator=torch.Generator().manual_seed(1))
    found = path_losses(model, tokens)
    assert torch.allclose(found["up to", 2], losses(model(tokens[:, :-1]), tokens), atol=1e-4)
    frozen = frozen_run(model, tokens[:, :-1])
    term = paths.single_heads(frozen)[1, 2]
    alone = losses(frozen.normalised(frozen.embedding + term) @ frozen.W_U, tokens)
    assert torch.allclose(found["alone", (1, 2)], alone, atol=1e-5)
    assert sum(key[0] == "virtual" for key in found) == N_HEADS**2


def test_paths_of_the_hand_built_model(built, repeats):
    """Its induction head copies what it reads from the embedding: a single head, worth nearly all of the loss."""
    tables = path_tables(built, repeats, 4, AT)
    order = tables["paths"].set_index("path")
    assert order.share["single heads"] == pytest.approx(1, abs=0.02)
    assert order.share.sum() == pytest.approx(1)
    assert order.marginal.sum() == pytest.approx(math.log(VOCABULARY) - order.loss.iloc[-1], abs=1e-4)
    heads = tables["path_heads"].set_index("heads")
    assert heads.alone["L1H0"] == pytest.approx(order.marginal["single heads"], abs=0.05)
    assert heads.alone["layer 1"] == pytest.approx(heads.alone["L1H0"], abs=1e-4)
    assert tables["virtual_heads"].marginal.abs().max() < 0.05


def test_mlps_have_no_paths(tokens):
    with pytest.raises(ConfigError, match="attention-only"):
        frozen_run(shaken(d_mlp=5), tokens)


# ------------------------------------------------------------------------------------------------ the ideal head


@pytest.mark.parametrize("offset", [0, 1, 2])
@pytest.mark.parametrize("match", paths.MATCHES)
@pytest.mark.parametrize("rest", paths.RESTS)
def test_ideal_pattern_by_definition(offset, match, rest):
    tokens = torch.randint(5, (3, 17), generator=torch.Generator().manual_seed(1))
    expected = torch.zeros(3, 17, 17)
    for row, text in enumerate(tokens.tolist()):
        for query in range(17):
            targets = [j + offset for j in range(query) if text[j] == text[query] and j + offset <= query]
            targets = targets[-1:] if match == "last" else targets
            for key in targets:
                expected[row, query, key] = 1 / len(targets)
            if not targets and rest == "start":
                expected[row, query, 0] = 1
    assert torch.allclose(paths.ideal_pattern(tokens, offset, match, rest), expected)


def test_ideal_pattern_refuses_unknown_names():
    with pytest.raises(ValueError, match="mean, last"):
        paths.ideal_pattern(torch.zeros(1, 3, dtype=torch.long), match="best")


def test_copy_directions_raise_their_token():
    W_U = torch.randn(13, D_VOCAB, generator=torch.Generator().manual_seed(1))
    directions = paths.copy_directions(W_U)
    assert torch.allclose(directions.norm(dim=1), torch.ones(D_VOCAB))
    above_mean = directions @ (W_U - W_U.mean(1, keepdim=True))
    assert (above_mean.diagonal() > 0).all()
    centred = W_U - W_U.mean(1, keepdim=True)
    length = (centred - centred.mean(0)).norm(dim=0)
    assert torch.allclose(above_mean.diagonal(), length, atol=1e-5)  # the most that length 1 can do
    assert directions.sum(1).abs().max() < 1e-5  # LayerNorm's centring takes nothing off


def test_replacing_is_patching(model, tokens):
    """Every kind of model: no head, removed heads and ideal patterns as `Patch` defines them."""
    inputs = tokens[:, :-1]
    assert torch.allclose(losses_when(model, tokens, []), losses(model(inputs), tokens), atol=1e-4)
    scale = torch.ones(2, N_HEADS)
    scale[0, 1] = scale[1, 2] = 0
    removed = losses(model(inputs, patch=Patch(scale)), tokens)
    assert torch.allclose(losses_when(model, tokens, [(0, 1), (1, 2)]), removed, atol=1e-4)
    _, kept = model(inputs, record=("pattern",))
    patterns = kept.pattern[0].clone()
    patterns[:, 1] = paths.ideal_pattern(inputs, 2, "last", "start")
    patched = losses(model(inputs, patch=Patch(patterns={0: patterns})), tokens)
    ideal = Ideal("test", offset=2, match="last", rest="start")
    assert torch.allclose(losses_when(model, tokens, [(0, 1)], ideal), patched, atol=1e-4)
    assert torch.allclose(
        losses_when(model, tokens, [(0, 1)], IDEAL, scale=0.0), losses_when(model, tokens, [(0, 1)]), atol=1e-5
    )


def test_the_hand_built_head_is_the_ideal_one(ideal):
    shares = ideal[ideal.role == "induction"].set_index("variant").share
    for variant in ("ideal", "ideal, last occurrence", "ideal, start if none"):
        assert shares[variant] == pytest.approx(1, abs=0.01)
    assert shares["ideal copy"] > 0.99
    assert shares["wrong offset 0"] < 0.01 and shares["wrong offset 2"] < 0.01
    assert shares["wrong offset 2, copy"] == pytest.approx(0, abs=0.05)


def test_controls_have_no_share(ideal):
    """Heads without weights have no effect to keep. The previous-token head has, but an induction pattern in its place
    leaves the model worse than a guess (its share is not 0, as without it the model is surely and badly wrong)."""
    controls = ideal[(ideal.role == "control") & (ideal.variant == "ideal")].set_index("heads")
    assert set(controls.index) == {"L0H0", "L0H1", "L1H1"}
    assert controls.share[["L0H1", "L1H1"]].isna().all() and controls.effect[["L0H1", "L1H1"]].abs().max() < 1e-5
    assert controls.loss["L0H0"] < 0.01 and controls.loss_ideal["L0H0"] > math.log(VOCABULARY)


def test_scales_are_fitted_on_other_examples(built, repeats, heads, monkeypatch):
    seen = []
    monkeypatch.setattr(ideal_head, "fitted_scale", lambda model, examples, *_: seen.append(examples.tokens) or 1.0)
    ideal_rows(built, repeats, replacements(heads[["layer", "head", "head_type"]], n_controls=0), AT)
    assert seen and all(torch.equal(tokens, repeats.tokens[::2]) for tokens in seen)


def test_share_of_nothing_is_no_share():
    above, below = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])
    assert ratio(above, below).value == pytest.approx(0.5)
    many = torch.arange(1.0, 9.0)
    assert tuple(ratio(many, 2 * many)) == pytest.approx((0.5, 0.5, 0.5))
    assert all(math.isnan(value) for value in ratio(above, torch.tensor([-1.0, 0.0, 1.0])))


# ------------------------------------------------------------------------------------------------ the room


@pytest.fixture
def a_run(tmp_path, request) -> RunDir:
    """A finished run of an untrained model; its changes may be given as a parameter."""
    model = shaken(n_ctx=67, d_vocab=61, **getattr(request, "param", {}))
    trained = TrainConfig(model=model.config, data=DataConfig("repeats", cache_dir=str(tmp_path / "cache")))
    trained.data.repeat_tokens = 20_011
    trained.evaluation = EvaluationConfig(early_index=7, late_index=61, half_width=1, n_sequences=3)
    run = RunDir(tmp_path / "run")
    run.write_config(trained)
    counts = open_corpus(trained.data, trained.model.d_vocab).token_counts()
    write_table(run, "token_counts", pd.DataFrame({"count": counts}))
    for step in (0, 5):
        run.write_snapshot(model.state_dict(), step, 100 * step)
    run.write_meta(status="done")
    return run


KINDS_OF_RUN = {"two_layers": {}, "mlp": {"d_mlp": 17}, "one_layer": {"n_layers": 1}}


@pytest.mark.parametrize("a_run", KINDS_OF_RUN.values(), ids=KINDS_OF_RUN, indirect=True)
def test_run_writes_its_room_and_nothing_else(a_run):
    run = a_run
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    value = circuits.run(CircuitsConfig(str(run.path), n_examples=4, n_controls=2), run.path / "circuits")
    assert isinstance(value, float)
    assert {path: path.read_bytes() for path in before} == before
    new = {path.relative_to(run.path) for path in run.path.rglob("*") if path.is_file()}
    new -= {path.relative_to(run.path) for path in before}
    assert {path.parts[0] for path in new} == {"circuits"}
    stems = {path.stem for path in new}
    assert ("paths" in stems) == (not run.config().model.d_mlp)
    assert ("composition" in stems) and ("qk_terms" in stems)
    assert {"ov_eigenvalues", "ideal_head", "ideal_head_controls", "composition_rank", "qk_separation"} <= stems


def test_a_run_with_nothing_to_replace(a_run):
    """Without induction heads and controls the table has its columns and no row, and the share is not known."""
    value = circuits.run(CircuitsConfig(str(a_run.path), n_examples=4, n_controls=0), a_run.path / "circuits")
    table = a_run.folder("circuits").table("ideal_head")
    assert math.isnan(value) and not len(table) and {"role", "variant", "share_low"} <= set(table.columns)


def test_plots_leave_their_tables_alone(built, repeats, heads, ideal):
    tables = path_tables(built, repeats, 4, AT)
    composition = pd.concat([composition_rows(built, AT), composition_rows(built, {"step": 0, "tokens": 0})])
    terms = circuits.qk_rows(built, torch.rand(2, 2, generator=torch.Generator().manual_seed(1)), AT)
    calls = [
        (plots.ov_eigenvalues, circuits.eigenvalue_rows(built, AT), heads),
        (plots.composition, composition, heads),
        (plots.composition_over_tokens, composition, heads),
        (plots.qk_terms, terms, heads),
        (plots.paths, tables["paths"]),
        (plots.path_heads, tables["path_heads"], heads),
        (plots.ideal_head, ideal),
        (plots.ideal_head_controls, ideal),
    ]
    for plot, *given in calls:
        copies = [table.copy() for table in given]
        assert isinstance(plot(*given), Figure)
        for table, copy in zip(given, copies, strict=True):
            pd.testing.assert_frame_equal(table, copy)
