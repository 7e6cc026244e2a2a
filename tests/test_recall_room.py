"""`induction recall`: the room on a small network, its pieces by hand, its verdicts from tables, its mistakes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hand_made import write_table
from scored_runs import reasons, values, verdict

from induction_cli import cli, launch
from induction_cli.config import ConfigError, DataConfig, RecallConfig
from induction_cli.evidence import recall
from induction_cli.minimal import recall_memory as memory
from induction_cli.minimal import replicas
from induction_cli.minimal.classify_data import random_stream
from induction_cli.minimal.recall_data import character_language
from induction_cli.minimal.recall_network import initial_weights
from induction_cli.runs.run_dir import RunDir

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat and the rat ran at the cat; " * 20


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> DataConfig:
    path = tmp_path_factory.mktemp("text") / "cats.txt"
    path.write_text(TEXT)
    return DataConfig(source="files", paths=[str(path)])


def small(text: DataConfig, **changes) -> RecallConfig:
    sizes = {"d_vocab": 11, "n_triggers": 2, "length": 17, "n_positions": 34, "d_model": 23, "batch_size": 7}
    asked = {
        "seeds": [0, 3],
        "steps": 5,
        "measure_every": 2,
        "n_sequences": 13,
        "positions": ["relative"],
        "threads": 1,
    }
    return RecallConfig(data=text, **{**sizes, **asked, **changes})


# ------------------------------------------------------------------------------------------------ the language


def test_characters_by_frequency_and_the_rest_in_one():
    language, letters = character_language(["aab", "acbXY!", "never read"], 4, 8)
    assert letters == "abc"  # aab acbXY: a 3, b 2, then c, X and Y, the first of which came first
    assert language.unigram.tolist() == pytest.approx([3 / 8, 2 / 8, 1 / 8, 2 / 8])
    assert language.bigram[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert language.bigram[3].tolist() == [0, 0, 0, 1]
    with pytest.raises(ConfigError, match="d_vocab is 9; the text has 3 different characters"):
        character_language(["abc"], 9, 100)


# ------------------------------------------------------------------------------------------------ the room


@pytest.fixture(scope="module")
def room(text, tmp_path_factory) -> RunDir:
    out = tmp_path_factory.mktemp("recall")
    config = small(text, global_memory=True, loss="all", lengths=[17, 34], counts=[0, 1, 2], n_prompts=3)
    value = recall.run(config, out)
    made = RunDir(out)
    final = made.table("training").query("step == 5")
    assert value == pytest.approx(final.in_context_accuracy.mean())
    return made


def test_tables(room):
    training = room.table("training")
    assert training.step.unique().tolist() == [0, 1, 2, 4, 5] and set(training.seed) == {0, 3}
    assert set(room.table("probes").probe) == {
        *("previous_recall", "match_recall", "copy_recall", "bigram_divergence"),
        *("previous_token_attention", "previous_token_argmax", "match_attention", "match_argmax"),
    }
    assert room.table("lengths")[["length", "seed"]].to_numpy().tolist() == [[17, 0], [17, 3], [34, 0], [34, 3]]
    assert len(room.table("prompts")) == 2 * 3 * 3 * 3  # seeds, counts, counts, prompts
    assert room.table("balance")[["seed", "global_count"]].to_numpy().tolist() == [
        [s, c] for s in (0, 3) for c in range(3)
    ]
    assert set(room.table("definitions").measure) >= set(room.table("probes").probe)
    for plot in ("learning", "memories", "lengths", "balance", "agreement"):
        assert (room.path / "plots" / f"{plot}.png").exists()


def test_seeds_trained_together_are_the_seeds_alone(room, text, tmp_path):
    config = small(text, global_memory=True, loss="all", seeds=[3])
    recall.run(config, tmp_path)
    alone, together = RunDir(tmp_path).table("training"), room.table("training").query("seed == 3")
    pd.testing.assert_frame_equal(alone, together.reset_index(drop=True), atol=1e-5)


def test_a_stopped_run_keeps_the_networks_that_were_done(text, tmp_path, monkeypatch):
    train, begun = recall.train, []

    def stops(network, *rest):
        begun.append(network.positions)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return train(network, *rest)

    monkeypatch.setattr(recall, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        recall.run(small(text, positions=["relative", "absolute"]), tmp_path)
    assert set(RunDir(tmp_path).table("training").positions) == {"relative"}
    assert not list(tmp_path.rglob("*.part")) and not (tmp_path / "plots").exists()


def test_ideal_weights_agree_with_their_own_prediction(text):
    """Trained strengths of the construction are the construction's, so the two leads are the same."""
    language, _ = character_language([TEXT], 11, 500)
    config = small(text, embedding="orthonormal", d_model=110, global_memory=True, counts=[0, 1, 2], n_prompts=5)
    network = config.networks()[0]
    start = initial_weights(network, random_stream(1))
    strengths = memory.Strengths(8.0, 3.0, 9.0, torch.randn(11, 11, generator=torch.Generator().manual_seed(1)))
    weights = memory.ideal_weights(start, strengths, "relative")
    rows, found = recall.prompt_rows(weights, network, language, config, 0)
    assert (found.previous, found.match, found.copy) == pytest.approx((8, 3, 9), rel=1e-3)
    prompts = pd.DataFrame(rows)
    assert prompts.lead.to_numpy() == pytest.approx(prompts.predicted_lead.to_numpy(), abs=1e-3)
    agreement = pd.DataFrame(recall.agreement_rows(prompts)).set_index("over")
    assert agreement.correlation.tolist() == pytest.approx([1, 1]) and (agreement.error < 1e-3).all()
    balance = pd.DataFrame(recall.balance_rows(prompts))
    pd.testing.assert_series_equal(balance.balance, balance.predicted_balance, check_names=False, atol=1e-2)


@pytest.mark.parametrize(
    ("leads", "point"), [([-3, -1, 1, 5], 1.5), ([1, 2, 3, 4], 0), ([-4, -3, -2, -1], None), ([-1, 1, -1, 2], 0.5)]
)
def test_balance_by_hand(leads, point):
    found = recall.crossing(np.array([0.0, 1, 2, 4]), np.array(leads, float))
    assert np.isnan(found) if point is None else found == pytest.approx(point)


def test_measured_steps():
    assert recall.measured_steps(20, 9) == [0, 1, 2, 4, 8, 9, 16, 18, 20]


def test_events_by_hand(text):
    """Recalls rise in a straight line to 1 at steps 4, 8 and 16: half way at 2, 4 and 8."""
    config, tables = small(text, seeds=[5], loss="all"), recall.Tables()
    network = config.networks()[0]
    for step in range(0, 21, 2):
        at = {**recall.label(network, 5), "step": step}
        for memory_name, end in (("copy", 8), ("match", 4), ("previous", 16)):
            probe = {"probe": f"{memory_name}_recall", "value": min(1.0, step / end)}
            tables.rows["probes"].append({**at, **probe})
        losses = {name: 4.0 - min(2.0, step / 5) for name in recall.LOSSES}
        tables.rows["training"].append({**at, **losses, "global_loss": 4.0})
    recall.add_events(network, config, tables)
    events = pd.DataFrame(tables.rows["events"]).set_index("event").onset_step
    assert events[["copy_recall", "match_recall", "previous_recall", "in_context_loss"]].tolist() == [4, 2, 8, 5]
    assert np.isnan(events.global_loss)  # it never moved
    order = pd.DataFrame(tables.rows["order"])
    assert order[["first", "second", "ratio"]].to_numpy().tolist() == [
        ["copy_recall", "match_recall", 2.0],
        ["match_recall", "previous_recall", 0.25],
    ]


# ------------------------------------------------------------------------------------------------ verdicts


def tables(folder: Path, values: list[float], n_layers=2, positions="absolute", trained_on="in_context") -> Path:
    """A room in which every number of seed i is values[i]: accuracies, recalls, order, lengths, agreement, balance."""
    room = RunDir(folder)
    who = [
        {"positions": positions, "n_layers": n_layers, "trained_on": trained_on, "seed": i} for i in range(len(values))
    ]
    seeds = list(zip(who, values, strict=True))
    steps = [{**w, "step": step, "in_context_accuracy": v if step else 0.0} for w, v in seeds for step in (0, 9)]
    write_table(room, "training", pd.DataFrame(steps))
    write_table(
        room, "probes", pd.DataFrame([{**w, "step": 9, "probe": "previous_recall", "value": v} for w, v in seeds])
    )
    pairs = [{**w, "first": a, "second": b, "ratio": v} for w, v in seeds for a, b in recall.ORDER]
    write_table(room, "order", pd.DataFrame(pairs))
    far = [{**w, "length": at, "in_context_accuracy": v if at == 68 else 1} for w, v in seeds for at in (17, 34, 68)]
    write_table(room, "lengths", pd.DataFrame(far))
    agreed = [{**w, "over": over, "correlation": v, "error": 1.0} for w, v in seeds for over in ("cells", "prompts")]
    write_table(room, "agreement", pd.DataFrame(agreed))
    balance = [{**w, "global_count": c, "balance": 1 + v, "predicted_balance": 1} for w, v in seeds for c in (0, 1)]
    write_table(room, "balance", pd.DataFrame(balance))
    write_table(room, "prompts", pd.DataFrame([{**w, "context_count": 6} for w, _ in seeds]))
    return folder


HIGH, LOW, MIXED = [0.95, 0.97, 0.96, 0.99, 0.94], [0.3, 0.2, 0.4, 0.35, 0.25], [0.5, 1.3, 0.7, 1.4, 0.9]
KINDS = {
    "8a": {},
    "8b": {},
    "8f": {"positions": "relative"},
    "8h": {"positions": "none", "n_layers": 3},
    "8i": {"trained_on": "all"},
    "8j": {"trained_on": "all"},
}
BELOW = {"8c": {}, "8d": {}, "8e": {"trained_on": "all"}, "8g": {}, "8k": {"trained_on": "all"}}


def network(of: dict) -> str:
    return f"{of.get('positions', 'absolute')}, {of.get('n_layers', 2)} layers"


@pytest.mark.parametrize("claim", [*KINDS, *BELOW])
def test_seeds_that_support_a_claim_and_seeds_that_do_not(claim, tmp_path):
    of = {**KINDS, **BELOW}[claim]
    high = [v + 0.2 for v in HIGH] if claim not in ("8i", "8j") else HIGH  # above 0.9 and above 1; no correlation is
    for name, numbers, is_for in (("high", high, claim in KINDS), ("low", LOW, claim in BELOW)):
        found = verdict(claim, tables(tmp_path / name, numbers, **of), model_class=network(of))
        assert (found.verdict, found.n) == ("supported" if is_for else "not supported", 5)
        assert found.low < found.estimate < found.high


@pytest.mark.parametrize("claim", sorted(set(KINDS) | set(BELOW) - {"8g"}))
def test_seeds_that_disagree_decide_nothing(claim, tmp_path):
    of = {**KINDS, **BELOW}[claim]
    mixed = [0.99, 0.2, 0.95, 0.98, 0.7] if claim in ("8i", "8j") else MIXED
    found = verdict(claim, tables(tmp_path, mixed, **of), model_class=network(of))
    assert found.verdict == "inconclusive"


def test_a_seed_that_never_comes_to_it_cannot_say(tmp_path):
    tables(tmp_path, [0.3, np.nan, 0.4, 0.5])
    assert reasons("8c", tmp_path, model_class="absolute, 2 layers") == ["it never comes to that"]
    assert verdict("8c", tmp_path, model_class="absolute, 2 layers").n == 3


def test_a_balance_that_is_never_reached_counts_as_the_largest_count(tmp_path):
    made = RunDir(tables(tmp_path / "never", [0.0, 0.0, 0.0], trained_on="all"))
    balance = made.table("balance")
    balance.loc[balance.seed == 0, "predicted_balance"] = np.nan  # trained balances at 1, predicted at 6 or more
    balance.loc[balance.seed == 1, ["balance", "predicted_balance"]] = np.nan  # neither: nothing to compare
    write_table(made, "balance", balance)
    assert values("8k", made.path, model_class="absolute, 2 layers") == [5, 0]


def test_other_rooms_are_left_alone(tmp_path):
    write_table(RunDir(tmp_path), "training", pd.DataFrame({"step": [0], "tokens": [0], "loss": [1.0]}))
    assert all(verdict(claim, tmp_path).estimates == () for claim in (*KINDS, *BELOW))


# ------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["n_triggers=66"], "n_triggers is 66; d_vocab=65 has too few tokens for it"),
        (["length=300"], "length is 300; n_positions=256 is too few for it"),
        (["learning_rate=-1"], "learning_rate is -1.0; it must be finite and above 0"),
        (["learning_rate=inf"], "learning_rate is inf; it must be finite and above 0"),
        (["weight_decay=nan"], "weight_decay is nan; it must be finite and at least 0"),
        (["positions=[rotary]"], "positions has 'rotary'; there are absolute, relative, none"),
        (["positions=[]"], "positions is empty; give at least one"),
        (["n_layers=[1]"], "n_layers has 1; it must be at least 2"),
        (["seeds=[0,0]"], "seeds has one twice: [0, 0]"),
        (["seeds=[-1]"], "seeds has -1; it must be at least 0"),
        (["steps=0"], "steps is 0; it must be at least 1"),
        (["lengths=[32]"], "lengths has 32; it must be at least length=64"),
        (["lengths=[512]"], "lengths has 512; n_positions=256 is too few for it"),
        (["counts=[0,20]", "global_memory=true"], "counts has 20; its prompts have 81 tokens, length is 64"),
        (["counts=[0,1]"], "counts asks what the language's memory says; it needs global_memory=true"),
        (["counts=[0,1]", "global_memory=true", "n_layers=[3]"], "counts compares with the construction"),
        (["data=repeats"], "data.source is 'repeats'; the language is counted in text"),
    ],
)
def test_mistakes_are_one_line_and_create_nothing(settings, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["recall", *settings]) == 2
    said = capsys.readouterr().err.strip()
    assert says in said and "\n" not in said
    assert not list(tmp_path.iterdir())


def test_a_text_with_too_few_characters_leaves_no_folder(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["recall", "data=files", f"data.paths={text.paths}"]) == 2
    assert "d_vocab is 65; the text has 13 different characters" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/recall/*"))


@pytest.mark.parametrize("recipe", ["memories", "positions", "global_vs_context", "smoke"])
def test_recipes_compose(recipe):
    config = launch.compose("recall", [launch.recipe_overrides("recall", recipe)])[0]
    assert len(config.networks()) == len(config.positions) * len(config.n_layers)
    assert recipe == "smoke" or len(config.seeds) >= 5


def test_default_training_starts_from_nothing(text):
    """Trained matrices are zero before training, so every probe is at chance and attention is even."""
    network = small(text).networks()[0]
    weights = initial_weights(network, random_stream(0, 3))
    assert all(bool((weights[name] == 0).all()) for name in ("layer_0.W_K", "layer_1.W_K", "layer_1.W_O"))
    assert replicas.stack([weights, weights])["W_E"].shape == (2, 11, 23)
