"""Recall: the language against its definition, ideal weights against their closed form, probes, replicas, errors."""

import itertools
import math

import numpy as np
import pytest
import torch

from induction_cli.config import ConfigError, RecallNetworkConfig
from induction_cli.minimal import recall_memory as memory
from induction_cli.minimal import replicas
from induction_cli.minimal.classify_data import random_stream
from induction_cli.minimal.recall_data import (
    Language,
    RecallBatches,
    RecallSequences,
    draw_recall,
    estimate_language,
    global_vs_context,
)
from induction_cli.minimal.recall_network import frozen, initial_weights, loss, recall_network, split

CLOSE = {"atol": 1e-5, "rtol": 1e-4}
V = 7


def language(d_vocab: int = V, seed: int = 0) -> Language:
    generator = torch.Generator().manual_seed(seed)
    bigram = torch.rand(d_vocab, d_vocab, generator=generator, dtype=torch.float64) ** 3 + 1e-3
    unigram = torch.arange(d_vocab, 0, -1, dtype=torch.float64)
    return Language(unigram / unigram.sum(), bigram / bigram.sum(1, keepdim=True))


def small(**changes) -> RecallNetworkConfig:
    sizes = {"d_vocab": V, "n_triggers": 2, "length": 17, "n_positions": 23, "d_model": 67, "batch_size": 11}
    return RecallNetworkConfig(**{**sizes, "embedding": "orthonormal", **changes})


def drawn(config: RecallNetworkConfig, n: int = 300) -> RecallSequences:
    return draw_recall(config, language(), n, random_stream(0))


# ------------------------------------------------------------------------------------------------ the language


def test_language_of_a_text():
    found = estimate_language(np.array([0, 1, 0, 1, 1, 2], dtype=np.uint16), 4)
    assert torch.allclose(found.unigram, torch.tensor([2, 3, 1, 0]).double() / 6)
    assert found.bigram[0].tolist() == [0, 1, 0, 0]
    assert torch.allclose(found.bigram[1], torch.tensor([1, 1, 1, 0]).double() / 3)
    assert torch.equal(found.bigram[2], found.unigram)  # nothing follows it


@pytest.mark.parametrize("fixed", [True, False])
def test_triggers_have_one_follower_in_a_sequence_and_any_over_sequences(fixed):
    made = drawn(small(fixed_triggers=fixed), 400)
    inputs, targets = made.tokens[:, :-1], made.tokens[:, 1:]
    for i in range(2):
        here = inputs == made.triggers[:, i : i + 1]
        assert (targets == made.followers[:, i : i + 1])[here].all()
    assert (made.triggers[:, 0] != made.triggers[:, 1]).all()
    if fixed:
        assert (made.triggers == torch.tensor([0, 1])).all()  # the most frequent
    counts = torch.bincount(made.followers.flatten(), minlength=V).float() / 800
    assert (counts - 1 / V).abs().max() < 0.04


def test_occurrences_are_counted_one_by_one():
    made = drawn(small(), 40)
    for row, seen, triggers in zip(made.tokens.tolist(), made.occurrence.tolist(), made.triggers.tolist(), strict=True):
        for t, token in enumerate(row[:-1]):
            assert seen[t] == (row[: t + 1].count(token) if token in triggers else 0)


def test_everything_else_follows_the_bigrams():
    made, known = drawn(small(length=200, positions="none"), 300), language()
    inputs, targets = made.tokens[:, :-1], made.tokens[:, 1:]
    for token in range(2, V):
        after = targets[inputs == token]
        counts = torch.bincount(after, minlength=V).double() / len(after)
        assert (counts - known.bigram[token]).abs().max() < 0.03
    first = torch.bincount(drawn(small(), 4000).tokens[:, 0], minlength=V).double() / 4000
    assert (first - known.unigram).abs().max() < 0.03


def test_triggers_can_be_kept_back():
    made = draw_recall(small(), language(), 100, random_stream(0), length=22, first_place=15)
    assert (made.occurrence[:, :15] == 0).all() and (made.occurrence[:, 15:] == 1).any()
    assert (made.tokens[:, :15] > 1).all() and made.tokens.shape == (100, 23)


def test_followers_from_the_bigrams():
    made = drawn(small(bigram_followers=True), 3000)
    counts = torch.bincount(made.followers[:, 0], minlength=V).double() / 3000
    assert (counts - language().bigram[0]).abs().max() < 0.03


def test_batches_are_a_function_of_seed_and_step():
    first, other = (RecallBatches(small(), language(), 3) for _ in range(2))
    assert torch.equal(first(5).tokens, other(5).tokens)
    assert not torch.equal(first(5).tokens, first(6).tokens)


def test_prompts_have_the_counts_asked_for():
    known, triggers = language(11), torch.tensor([0, 3])
    tokens, o, b = global_vs_context(known, triggers, 50, 19, 3, 2, random_stream(0))
    assert tokens.shape == (50, 19) and set(tokens[:, -1].tolist()) == {0, 3}
    for row, context, common in zip(tokens.tolist(), o.tolist(), b.tolist(), strict=True):
        q = row[-1]
        pairs = list(itertools.pairwise(row))
        assert pairs.count((q, context)) == 3 and pairs.count((q, common)) == 2
        assert (row.count(q), row.count(context), row.count(common)) == (6, 3, 2)
        assert len({q, context, common}) == 3
        assert known.bigram[q][common] == max(p for j, p in enumerate(known.bigram[q].tolist()) if j != q)


# ------------------------------------------------------------------------------------------------ ideal weights


def ideal(positions: str, strengths=None, **changes):
    config = small(positions=positions, global_memory=True, **changes)
    strengths = strengths or memory.Strengths(40.0, 60.0, 30.0, torch.zeros(V, V))
    start = initial_weights(config, random_stream(1))
    return config, strengths, memory.ideal_weights(start, strengths, positions)


@pytest.mark.parametrize("positions", ["absolute", "relative"])
def test_ideal_weights_have_the_closed_form_s_logits(positions):
    """At strengths where nothing is saturated."""
    G = torch.randn(V, V, generator=torch.Generator().manual_seed(2))
    _, strengths, weights = ideal(positions, memory.Strengths(1.7, 2.3, 3.1, G))
    tokens = drawn(small(), 13).tokens[:, :-1]
    logits, patterns = recall_network(weights, tokens, positions)
    assert torch.allclose(logits, memory.closed_form_logits(strengths, tokens), atol=1e-3)
    assert patterns[0][0, 5, 4].item() == pytest.approx(math.e**1.7 / (math.e**1.7 + 5), rel=1e-3)
    found = memory.strengths(weights, positions, 17, torch.tensor([0, 1]))
    assert (found.previous, found.match, found.copy) == pytest.approx((1.7, 2.3, 3.1), rel=1e-3)
    assert torch.allclose(found.bigram, G, atol=1e-3)


@pytest.mark.parametrize("positions", ["absolute", "relative"])
def test_ideal_weights_solve_the_task_and_every_probe_says_so(positions):
    config, _, weights = ideal(positions)
    made = drawn(config, 50)
    # left out: a trigger in the first place, which carries itself and so matches; a trigger that follows a trigger
    clean = (made.tokens[:, :1] != made.triggers).all(1)
    clean &= (made.followers[:, :, None] != made.triggers[:, None]).flatten(1).all(1)
    made = RecallSequences(*(part[clean] for part in (made.tokens, made.occurrence, made.triggers, made.followers)))
    logits, patterns = recall_network(weights, made.tokens[:, :-1], positions)
    assert split(logits, made)["in_context_accuracy"] == 1.0
    assert split(logits, made)["in_context_loss"] < 1e-3
    recall = memory.memory_recall(weights, positions, 17, torch.tensor([0, 1]))
    early = {"previous_early": 1.0} if positions == "absolute" else {}
    assert recall == {"match": 1.0, "copy": 1.0, "previous": 1.0, **early}
    probes = memory.attention_probes(patterns, made)
    assert all(value == pytest.approx(1.0, abs=1e-4) for value in probes.values()), probes


def test_previous_token_memory_that_knows_only_the_first_positions():
    """Right for t = 1 .. 6 of 16; of the first quarter of 17 all 4."""
    _, _, weights = ideal("absolute")
    W_pos = weights["W_pos"]
    weights["layer_0.W_K"] = W_pos[1:7].T @ W_pos[:6] + W_pos[7:17].T @ W_pos[[0] * 10]
    recall = memory.memory_recall(weights, "absolute", 17, torch.tensor([0, 1]))
    assert recall["previous"] == pytest.approx(6 / 16) and recall["previous_early"] == 1.0


def test_bigram_divergence_is_zero_for_the_language_itself():
    known = language()
    strengths = memory.Strengths(1.0, 1.0, 1.0, known.bigram.log().float())
    _, _, weights = ideal("absolute", strengths)
    found = memory.bigram_divergence(weights, "absolute", known, torch.tensor([0, 1]))
    assert found == pytest.approx(0, abs=1e-5)


def test_context_and_language_balance_where_the_closed_form_says():
    """More in-context followers raise their lead; the global logit lowers it by what it is."""
    known, triggers = language(), torch.tensor([0])
    lead = []
    for count in range(4):
        tokens, o, b = global_vs_context(known, triggers, 40, 17, count, 1, random_stream(count))
        _, strengths, weights = ideal("absolute", memory.Strengths(30.0, 2.0, 5.0, known.bigram.log().float()))
        logits = recall_network(weights, tokens, "absolute")[0][:, -1]
        predicted = memory.closed_form_logits(strengths, tokens)[:, -1]
        assert torch.allclose(logits, predicted, atol=1e-3)
        lead.append((logits.gather(1, o[:, None]) - logits.gather(1, b[:, None])).mean().item())
    assert lead == sorted(lead)


def test_relative_positions_hold_at_any_length_and_absolute_ones_are_refused():
    config, _, weights = ideal("relative")
    made = draw_recall(config, language(), 30, random_stream(3), length=23)
    _, patterns = recall_network(weights, made.tokens[:, :-1], "relative")
    assert patterns[0].diagonal(-1, -2, -1).min() > 0.99
    with pytest.raises(ConfigError, match="24 tokens, but n_positions is 23"):
        recall_network(weights, torch.zeros(1, 24, dtype=torch.long), "absolute")


def test_without_positions_the_first_layer_cannot_tell_order():
    config = small(positions="none", n_layers=3, embedding="random")
    weights = initial_weights(config, random_stream(1))
    tokens = drawn(config, 5).tokens[:, :-1]
    logits, patterns = recall_network(weights, tokens, "none")
    assert len(patterns) == 3 and logits.shape == (5, 17, V)
    swapped = tokens.clone()
    swapped[:, [2, 3]] = tokens[:, [3, 2]]
    again = recall_network({**weights, "layer_0.W_K": torch.eye(67)}, swapped, "none")[1][0]
    before = recall_network({**weights, "layer_0.W_K": torch.eye(67)}, tokens, "none")[1][0]
    assert torch.allclose(again[:, -1, [3, 2]], before[:, -1, [2, 3]], **CLOSE)


def test_orthonormal_vectors():
    weights = initial_weights(small(), random_stream(1))
    vectors = torch.cat((weights["W_E"], weights["W_pos"], weights["W_U"].T))
    moved = vectors[:30] @ weights["layer_0.W_V"]
    every = torch.cat((vectors, moved))
    assert torch.allclose(every @ every.T, torch.eye(len(every)), atol=1e-5)


# ------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("kind", ["in_context", "all"])
def test_replicas_train_as_single_runs_do(kind):
    config = small(embedding="random", global_memory=True, positions="relative")
    singles = [initial_weights(config, random_stream(seed, 3)) for seed in range(3)]
    batches = [RecallBatches(config, language(), seed) for seed in range(3)]
    together = replicas.stack(singles)
    settings = {"momentum": 0.9, "weight_decay": 1e-4, "frozen": frozen(singles[0])}
    optimizer = replicas.SGD(together, 0.5, **settings)
    losses = replicas.batched(lambda weights, tokens, seen: loss(weights, tokens, seen, "relative", kind))
    for step in range(5):
        batch = RecallSequences.stack([draw(step) for draw in batches])
        optimizer.step(losses(together, batch.tokens, batch.occurrence))
    for i, single in enumerate(singles):
        alone = {name: weight.clone() for name, weight in single.items()}
        by_one = replicas.SGD(alone, 0.5, **settings)
        for step in range(5):
            batch = batches[i](step)
            by_one.step(loss(alone, batch.tokens, batch.occurrence, "relative", kind))
        for name in alone:
            assert torch.allclose(replicas.one(together, i)[name], alone[name], **CLOSE), name
            assert (name in frozen(single)) == torch.equal(alone[name], single[name])


@pytest.mark.slow
def test_learns_the_three_memories():
    config = small(embedding="random", d_model=64, length=24, n_positions=24, batch_size=32, learning_rate=2.0)
    weights = initial_weights(config, random_stream(0, 3))
    optimizer = replicas.SGD(weights, config.learning_rate, momentum=0.9, frozen=frozen(weights))
    batches = RecallBatches(config, language(), 0)
    for step in range(400):
        batch = batches(step)
        optimizer.step(loss(weights, batch.tokens, batch.occurrence, "absolute"))
    made = batches(10_000)
    assert split(recall_network(weights, made.tokens[:, :-1], "absolute")[0], made)["in_context_accuracy"] > 0.9
    recall = memory.memory_recall(weights, "absolute", 24, torch.tensor([0, 1]))
    assert recall["match"] == recall["copy"] == 1.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_triggers": 8}, "n_triggers is 8; d_vocab=7 has too few tokens for it"),
        ({"n_triggers": 0}, "n_triggers is 0; it must be at least 1"),
        ({"length": 24}, "length is 24; n_positions=23 is too few for it"),
        ({"length": 1}, "length is 1; it must be at least 2"),
        ({"n_layers": 1}, "n_layers is 1; it must be at least 2"),
        ({"positions": "rotary"}, "positions is 'rotary'; there are absolute, relative, none"),
        ({"loss": "some"}, "loss is 'some'; there are in_context, all"),
        ({"d_model": 66}, "d_model is 66; orthonormal embeddings of 7 tokens need at least 67"),
        ({"learning_rate": math.inf}, "learning_rate is inf"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"momentum": 1.0}, "momentum is 1.0"),
    ],
)
def test_bad_settings_are_named_in_one_line(changes, says):
    with pytest.raises(ConfigError) as error:
        draw_recall(small(**changes), language(), 3, random_stream(0))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_bad_languages_and_prompts_are_named():
    with pytest.raises(ConfigError, match="pi_b has negative or infinite entries"):
        Language(torch.ones(2) / 2, torch.tensor([[1.5, -0.5], [0.5, 0.5]]))
    with pytest.raises(ConfigError, match="pi_u does not sum to 1"):
        Language(torch.ones(2), torch.ones(2, 2) / 2)
    with pytest.raises(ConfigError, match=r"pi_b is \(2, 3\); pi_u has 2"):
        Language(torch.ones(2) / 2, torch.ones(2, 3) / 3)
    with pytest.raises(ConfigError, match="tokens 0 to 9; d_vocab is 4"):
        estimate_language(np.array([0, 9]), 4)
    sparse = Language(torch.tensor([0.5, 0.5, 0, 0]), torch.ones(4, 4) / 4)
    with pytest.raises(ConfigError, match="n_triggers is 3; only 2 tokens occur"):
        draw_recall(small(d_vocab=4, n_triggers=3, fixed_triggers=False), sparse, 2, random_stream(0))
    with pytest.raises(ConfigError, match="length is 10; 5 pairs and the last token need 11"):
        global_vs_context(language(), torch.tensor([0]), 2, 10, 3, 2, random_stream(0))
    with pytest.raises(ConfigError, match="context_count is -1"):
        global_vs_context(language(), torch.tensor([0]), 2, 10, -1, 2, random_stream(0))
    with pytest.raises(ConfigError, match="positions is 'none'"):
        ideal("none")
