"""Classify: sequences against their definitions, hand-built weights, replicas, the two reduced models."""

import math

import pytest
import torch
import torch.nn.functional as F

from induction_cli.config import ConfigError
from induction_cli.minimal import nested_logits as nested
from induction_cli.minimal import replicas, two_parameter
from induction_cli.minimal.classify_data import (
    Batches,
    Classes,
    ClassifyConfig,
    Sequences,
    draw_classes,
    draw_distinct,
    draw_sequences,
    evaluation_sets,
    random_stream,
    tokens,
)
from induction_cli.minimal.classify_measures import item_label_attention, measure
from induction_cli.minimal.classify_network import fast_logits, initial_weights, losses, network

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def small(**changes) -> ClassifyConfig:
    sizes = {"n_pairs": 6, "max_pairs": 7, "n_labels": 5, "n_classes": 35, "burstiness": 3, "d_content": 11}
    return ClassifyConfig(**{**sizes, "fresh_classes": 20, "batch_size": 13, **changes})


def drawn(config: ClassifyConfig, n: int, seed: int = 0, **arguments) -> tuple[Classes, Sequences]:
    classes = draw_classes(config, seed)
    return classes, draw_sequences(config, classes, n, random_stream(seed, 9), **arguments)


# ------------------------------------------------------------------------------------------------ sequences


def test_bursty_sequences_hold_each_class_exactly_b_times():
    _, made = drawn(small(), 200)
    for context, target in zip(made.context_classes.tolist(), made.target_class.tolist(), strict=True):
        assert sorted(context.count(k) for k in set(context)) == [3, 3]
        assert target in context
    first = (made.context_classes == made.target_class[:, None]).float()
    assert abs(first.mean(0) - 0.5).max() < 0.12  # its places are random


def test_independent_sequences_and_the_share_of_bursty_ones():
    config = small(p_bursty=0.3, n_classes=5000)  # chance repeats are rare: 15 / 5000
    _, made = drawn(config, 3000)
    repeats = torch.tensor([len(set(row)) == 2 for row in made.context_classes.tolist()])
    assert repeats.float().mean().item() == pytest.approx(0.3, abs=0.03)
    _, made = drawn(small(p_bursty=0.0), 500, without_target=True)
    assert not (made.context_classes == made.target_class[:, None]).any()


def test_classes_are_evenly_spread_over_labels_and_labels_over_targets():
    config = small()
    classes, made = drawn(config, 5000)
    assert torch.equal(torch.bincount(classes.labels), torch.full((5,), 7))
    assert torch.equal(made.context_labels, classes.labels[made.context_classes])
    assert torch.equal(made.target, classes.labels[made.target_class])
    assert abs(torch.bincount(made.target).float() / 5000 - 0.2).max() < 0.03


def test_zipf_exponent():
    config = small(alpha=1.3, p_bursty=0.0)
    _, made = drawn(config, 20_000)
    counts = torch.bincount(made.context_classes.flatten(), minlength=35).double()
    rank = torch.arange(1, 36).double().log()
    centred = rank - rank.mean()
    slope = (centred * counts.log()).sum() / (centred**2).sum()
    assert slope.item() == pytest.approx(-1.3, abs=0.03)


@pytest.mark.parametrize("n_classes", [40, 400])  # Gumbel's top k; drawing again
def test_distinct_draws_follow_successive_sampling(n_classes):
    p = torch.arange(1, n_classes + 1, dtype=torch.float64) ** -0.8
    p = p / p.sum()
    made = draw_distinct(p.cumsum(0), 40_000, 3, random_stream(4))
    assert all(len(set(row)) == 3 for row in made[:500].tolist())
    after_first = sum((p[0] * p[j] / (1 - p[j])).item() for j in range(1, n_classes))
    assert (made[:, 0] == 0).float().mean().item() == pytest.approx(p[0].item(), abs=0.006)
    assert (made[:, 1] == 0).float().mean().item() == pytest.approx(after_first, abs=0.006)


def test_items_have_the_definition_s_mean_and_variation():
    config = small(epsilon=0.7, d_content=50)
    classes, made = drawn(config, 4000)
    noise = (
        made.items * math.sqrt(1 + 0.49)
        - classes.means[torch.cat((made.context_classes, made.target_class[:, None]), 1)]
    )
    assert noise.mean().abs() < 1e-3
    assert noise.var().item() * 50 == pytest.approx(0.49, rel=0.01)
    assert classes.means.var().item() * 50 == pytest.approx(1.0, rel=0.1)


def test_fresh_classes_are_really_fresh():
    config = small(p_fresh=1.0, epsilon=0.0, d_content=200)
    classes, made = drawn(config, 26)  # two batches of 13
    assert made.context_classes.min() >= 35  # none of the run's own
    assert not set(made.context_classes[:13].flatten().tolist()) & set(made.context_classes[13:].flatten().tolist())
    assert (made.items.flatten(0, 1) @ classes.means.T).max() < 0.5  # an old class would give about 1
    again = draw_sequences(config, classes, 26, random_stream(0, 10))
    assert (made.items.flatten(0, 1) @ again.items.flatten(0, 1).T).max() < 0.5  # nor does a later batch have them
    match = (made.context_classes == made.target_class[:, None])[..., None] * made.items[:, :-1]
    assert torch.allclose(match.sum(1) / 3, made.items[:, -1], **CLOSE)  # but the context has the target's
    assert torch.equal(made.context_labels.gather(1, match.any(-1).int().argmax(1)[:, None])[:, 0], made.target)


def test_distinct_labels():
    _, made = drawn(small(distinct_labels=True, burstiness=2), 300)
    assert all(len(set(row)) == 3 for row in made.context_labels.tolist())


def test_swapped_labels_are_the_next_ones():
    classes, made = drawn(small(), 100, swapped=True)
    assert torch.equal(made.context_labels, (classes.labels[made.context_classes] + 1) % 5)
    assert torch.equal(made.target, (classes.labels[made.target_class] + 1) % 5)


def test_tokens_are_position_then_content():
    config = small()
    classes, made = drawn(config, 400)
    x = tokens(made, classes.label_vectors, config.n_positions)
    assert x.shape == (400, 13, 15 + 11)
    positions = x[..., :15].argmax(-1)
    assert torch.equal(positions, made.shift[:, None] + torch.arange(13))
    assert (x[..., :15].sum(-1) == 1).all()
    assert set(made.shift.tolist()) == {0, 1, 2}
    assert torch.equal(x[:, 1::2, 15:], classes.label_vectors[made.context_labels])
    assert torch.equal(x[:, 0::2, 15:], made.items)


def test_batches_are_a_function_of_seed_and_step():
    config = small()
    classes = draw_classes(config, 3)
    forward, other = Batches(config, classes, 3), Batches(config, classes, 3)
    kept = [forward(step).items for step in range(40)]
    assert torch.equal(other(33).items, kept[33]) and torch.equal(other(2).items, kept[2])
    assert not torch.equal(kept[0], kept[1])
    assert not torch.equal(Batches(config, classes, 4)(0).items, kept[0])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_classes": 36}, "n_classes is 36; it must be a multiple of n_labels=5"),
        ({"fresh_classes": 21}, "fresh_classes is 21; it must be a multiple"),
        ({"burstiness": 4}, "burstiness is 4; n_pairs=6 must be a multiple of it"),
        ({"burstiness": 0}, "burstiness is 0; it must be at least 1"),
        ({"n_pairs": 7, "burstiness": 1, "n_classes": 5}, "n_classes is 5; n_pairs/burstiness=7 distinct ones"),
        ({"distinct_labels": True, "burstiness": 1}, "n_labels is 5; n_pairs/burstiness=6 distinct ones"),
        ({"n_pairs": 9}, "n_pairs is 9; max_pairs=7 has only 15 positions for 19"),
        ({"epsilon": -0.1}, "epsilon is -0.1; it must be finite and at least 0"),
        ({"epsilon": math.inf}, "epsilon is inf"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"p_bursty": 1.5}, "p_bursty is 1.5; it must be finite and at most 1"),
        ({"p_fresh": math.nan}, "p_fresh is nan"),
        ({"learning_rate": math.inf}, "learning_rate is inf"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"n_labels": 2.5}, "n_labels is 2.5; it must be a whole number"),
        ({"alpha": 1.0, "distinct_labels": True, "burstiness": 2}, "alpha is 1.0; distinct_labels"),
    ],
)
def test_bad_settings_are_named_in_one_line(changes, says):
    with pytest.raises(ConfigError) as error:
        draw_classes(small(**changes), 0)
    assert says in str(error.value) and "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------ hand-built weights


def induction_weights(config: ClassifyConfig, classes: Classes) -> dict[str, torch.Tensor]:
    """Previous-token head, match-and-copy head and a classifier that reads labels, each exact up to 1 / SCALE.

    Layer 1 carries the previous token's content, less its part along label vectors, into the position block; layer 2
    matches it with the target's content (less what a token has of its own: the first item carries itself) and writes a
    one-hot of the attended label over the position block, which the classifier passes on.
    """
    scale, sharp = 1000.0, 300.0
    n_positions, width, n_labels = config.n_positions, config.d_content, config.n_labels
    d = config.d_token
    dual = torch.linalg.pinv(classes.label_vectors)  # [D, L]: content @ dual = one-hot of a label
    without_labels = torch.eye(width) - dual @ classes.label_vectors
    zero = torch.zeros(d, d)
    weights = {f"attention_{layer}.W_{part}": zero.clone() for layer in (0, 1) for part in "QKV"}
    at = torch.arange(n_positions - 1)
    weights["attention_0.W_Q"][at + 1, at] = sharp
    weights["attention_0.W_K"][at, at] = 1
    weights["attention_0.W_V"][n_positions:, :width] = scale * without_labels
    weights["attention_1.W_Q"][n_positions:, n_positions:] = sharp * without_labels
    weights["attention_1.W_K"][:width, n_positions:] = torch.eye(width) / scale
    weights["attention_1.W_K"][n_positions:, n_positions:] = -torch.eye(width)
    weights["attention_1.W_V"][n_positions:, :n_labels] = scale * dual
    for layer in range(3):
        weights[f"classifier_{layer}.W"] = zero.clone()
        weights[f"classifier_{layer}.W"][range(n_labels), range(n_labels)] = 1
        weights[f"classifier_{layer}.b"] = torch.zeros(1)
    weights["W_U"] = torch.eye(d)[:, :n_labels].clone()
    return weights


def memory_weights(config: ClassifyConfig, classes: Classes) -> dict[str, torch.Tensor]:
    """No attention; the classifier knows every class by heart."""
    d, k = config.d_token, config.n_classes
    weights = {f"attention_{layer}.W_{part}": torch.zeros(d, d) for layer in (0, 1) for part in "QKV"}
    first = torch.zeros(d, d)
    first[config.n_positions :, :k] = classes.means.T / (classes.means**2).sum(1)
    for layer, (W, b) in enumerate(((first, -0.6), (torch.eye(d), 0.0), (torch.eye(d), 0.0))):
        weights[f"classifier_{layer}.W"], weights[f"classifier_{layer}.b"] = W, torch.tensor([b])
    weights["W_U"] = torch.zeros(d, config.n_labels)
    weights["W_U"][range(k), classes.labels] = 100.0
    return weights


def hand_built_case() -> tuple[ClassifyConfig, Classes, dict[str, Sequences]]:
    config = ClassifyConfig(
        n_pairs=4, max_pairs=64, n_labels=8, n_classes=64, burstiness=2, d_content=127, fresh_classes=16, epsilon=0.05
    )
    classes = draw_classes(config, 0)
    return config, classes, evaluation_sets(config, classes, 256, 0)


def test_hand_built_induction_head_solves_new_classes_and_has_known_probes():
    config, classes, sets = hand_built_case()
    found = measure(induction_weights(config, classes), sets, config, classes)
    assert found["in_context_accuracy"] == found["swapped_labels_accuracy"] == 1.0
    assert found["in_weights_accuracy"] == pytest.approx(7 / 63, abs=0.07)  # a label of the context, right by chance
    for name in ("item_label_attention", "target_labels_attention", "target_correct_attention"):
        assert found[name] == pytest.approx(1.0, abs=1e-3), name
    assert found["context_label_accuracy"] == 1.0


def test_hand_built_memory_knows_old_classes_only():
    config, classes, sets = hand_built_case()
    found = measure(memory_weights(config, classes), sets, config, classes)
    assert found["in_weights_accuracy"] > 0.99
    assert found["swapped_labels_accuracy"] < 0.01
    assert found["in_context_accuracy"] < 0.4
    assert found["item_label_attention"] == pytest.approx((1 / 2 + 1 / 4 + 1 / 6 + 1 / 8) / 4)
    assert found["target_labels_attention"] == pytest.approx(4 / 9)


def test_item_label_attention_of_a_known_pattern():
    pattern = torch.zeros(1, 5, 5)
    pattern[0, 1, 0], pattern[0, 3, 2], pattern[0, 2, 1] = 0.25, 0.75, 1.0  # the last is an item's, not a label's
    assert item_label_attention(pattern).item() == 0.5


# ------------------------------------------------------------------------------------------------ replicas


def replica_case(n: int, changes=({}, {"burstiness": 1}, {"epsilon": 0.5, "alpha": 1.0})):
    configs = [small(**changes[i % len(changes)]) for i in range(n)]
    classes = [draw_classes(config, i) for i, config in enumerate(configs)]
    weights = [initial_weights(26, 11, 5, random_stream(i, 3)) for i in range(n)]
    batches = [Batches(config, kept, i) for i, (config, kept) in enumerate(zip(configs, classes, strict=True))]
    return configs, classes, weights, batches


def plain_loss(weights, batch, label_vectors):
    logits, _ = network(weights, tokens(batch, label_vectors, 15))
    return F.cross_entropy(logits, batch.target)


def test_fast_path_agrees_with_the_definition_in_loss_and_gradient():
    _, classes, weights, batches = replica_case(3)
    vectors = torch.stack([kept.label_vectors for kept in classes])
    stacked = {name: weight.requires_grad_() for name, weight in replicas.stack(weights).items()}
    parts = [batch(0) for batch in batches]
    fast = losses(stacked, Sequences.stack(parts), vectors)
    gradients = torch.autograd.grad(fast.sum(), list(stacked.values()))
    for i, single in enumerate(weights):
        plain = plain_loss({name: w.requires_grad_() for name, w in single.items()}, parts[i], vectors[i])
        assert torch.allclose(fast[i], plain, **CLOSE)
        for one, many in zip(torch.autograd.grad(plain, list(single.values())), gradients, strict=True):
            assert torch.allclose(one, many[i], **CLOSE)
    assert fast_logits(stacked, Sequences.stack(parts), vectors).shape == (3, 13, 5)


def test_causal_but_for_the_last_token():
    config, classes, weights, batches = (part[0] for part in replica_case(1))
    x = tokens(batches(0), classes.label_vectors, config.n_positions)
    _, (first, second) = network(weights, x)
    for pattern in (first, second):
        assert pattern.triu(1).abs().max() == 0
        assert torch.allclose(pattern.sum(-1), torch.ones(()), **CLOSE)


def test_replicas_train_as_single_runs_do():
    """With seeds, data parameters and learning rates that differ between the replicas."""
    _, classes, weights, batches = replica_case(3)
    vectors, rates = torch.stack([kept.label_vectors for kept in classes]), torch.tensor([0.1, 0.2, 0.05])
    together = replicas.stack(weights)
    optimizer = replicas.SGD(together, rates, decay=1e-3)
    for batch in replicas.ahead(lambda step: Sequences.stack([draw(step) for draw in batches]), range(20)):
        optimizer.step(losses(together, batch, vectors))
    for i, single in enumerate(weights):
        alone = [weight.clone().requires_grad_() for weight in single.values()]
        for step in range(20):
            loss = plain_loss(dict(zip(single, alone, strict=True)), batches[i](step), vectors[i])
            for weight, gradient in zip(alone, torch.autograd.grad(loss, alone), strict=True):
                weight.data.mul_(1 - 1e-3).sub_(rates[i] * gradient)
        for name, weight in zip(single, alone, strict=True):
            assert torch.allclose(replicas.one(together, i)[name], weight, atol=1e-4), name


def test_sgd_is_torch_s():
    start = {"a": torch.randn(2, 3), "b": torch.randn(2, 5)}
    ours = {name: weight.clone() for name, weight in start.items()}
    theirs = [weight.clone().requires_grad_() for weight in start.values()]
    optimizer = replicas.SGD(ours, 0.1, weight_decay=0.01, momentum=0.9)
    reference = torch.optim.SGD(theirs, lr=0.1, weight_decay=0.01, momentum=0.9)
    for _ in range(5):
        optimizer.step((ours["a"] ** 3).sum(1) + ours["b"].cos().sum(1))
        reference.zero_grad()
        ((theirs[0] ** 3).sum() + theirs[1].cos().sum()).backward()
        reference.step()
    assert all(torch.allclose(a, b, **CLOSE) for a, b in zip(ours.values(), theirs, strict=True))


@pytest.mark.slow
def test_learns_in_context():
    """Two classes in the context: at first a coin's toss between their labels, then the right one."""
    config = ClassifyConfig(
        n_pairs=2, max_pairs=2, n_labels=4, n_classes=512, burstiness=1, d_content=15, batch_size=64,
        fresh_classes=16, learning_rate=0.1, distinct_labels=True,
    )  # fmt: skip
    classes = draw_classes(config, 0)
    sets, batches = evaluation_sets(config, classes, 300, 0), Batches(config, classes, 0)
    weights = replicas.stack([initial_weights(config.d_token, 15, 4, random_stream(0, 3))])
    optimizer = replicas.SGD(weights, config.learning_rate, decay=config.weight_decay)
    for step in range(1500):
        batch = Sequences.stack([batches(step)])
        optimizer.step(losses(weights, batch, classes.label_vectors[None]))
    found = measure(replicas.one(weights, 0), sets, config, classes)
    assert found["in_context_accuracy"] > 0.9 and found["in_weights_accuracy"] < 0.5


# ------------------------------------------------------------------------------------------------ two parameters


def two_parameter_case(**changes):
    config = small()
    classes, made = drawn(config, 17)
    model = two_parameter.TwoParameterConfig(**{"alpha": 0.1, **changes})
    weights = replicas.stack([two_parameter.initial_weights(model, 11, 5, random_stream(0))])
    return config, classes, Sequences.stack([made]), weights


def test_two_parameters_are_attention_spelled_out():
    """The closed form of layer 1 against attention written as matrices."""
    _, classes, batch, weights = two_parameter_case(beta_1=1.3, alpha=0.7, beta_2=0.4, memory_width=0)
    logits, _, second = two_parameter.two_parameter_logits(weights, batch, classes.label_vectors[None])
    at = torch.arange(13)
    scores = 1.3 * (at[:, None] == at + 1).float()
    first = scores.masked_fill(at > at[:, None], -torch.inf).softmax(-1)
    x = tokens(batch, classes.label_vectors[None], 15)[0, ..., 15:]
    overlap = torch.einsum("std,sd->st", first @ x, x[:, -1])
    pattern = (0.7 * overlap + 0.4 * (at % 2)).softmax(-1)
    assert torch.allclose(second[0], pattern, **CLOSE)
    shown = F.one_hot(batch.context_labels[0], 5).float()
    assert torch.allclose(logits[0], 10 * torch.einsum("sn,snl->sl", pattern[:, 1::2], shown), **CLOSE)


def test_two_parameter_probes_and_accuracies_at_the_solution():
    _, classes, sets = hand_built_case()
    model = two_parameter.TwoParameterConfig(beta_1=20.0, alpha=60.0, beta_2=60.0, memory_width=0)
    weights = replicas.stack([two_parameter.initial_weights(model, 127, 8, random_stream(0))] * 2)
    stacked = {name: Sequences.stack([part] * 2) for name, part in sets.items()}
    found = two_parameter.measure(weights, stacked, classes.label_vectors.expand(2, -1, -1))
    assert found["in_context_accuracy"].tolist() == [1, 1]
    assert found["swapped_labels_accuracy"].min() == 1
    assert found["item_label_attention"].min() > 0.999
    assert found["target_labels_attention"].min() > 0.999
    assert found["target_correct_attention"].min() > 0.99


def test_two_parameters_wait_for_each_other():
    """At alpha = 0 beta_1 feels nothing; as it grows, so does its pull, and both are pulled up."""
    _, classes, batch, weights = two_parameter_case(alpha=0.0)

    def pull(alpha: float) -> tuple[float, float]:
        point = {**weights, "alpha": torch.tensor([alpha], requires_grad=True)}
        point["beta_1"] = torch.tensor([0.0], requires_grad=True)
        loss = two_parameter.losses(point, batch, classes.label_vectors[None]).sum()
        b, a = torch.autograd.grad(loss, (point["beta_1"], point["alpha"]))
        return -b.item(), -a.item()

    assert pull(0.0)[0] == 0 and pull(0.0)[1] > 0
    assert 0 < pull(0.1)[0] < pull(0.5)[0]


def test_two_parameter_landscape_is_the_loss():
    _, classes, batch, weights = two_parameter_case()
    one, single = replicas.one(weights, 0), batch[0]
    grid = two_parameter.landscape(
        one, single, classes.label_vectors, torch.tensor([0.0, 4.0]), torch.tensor([0.1, 3.0])
    )
    assert grid.shape == (2, 2)
    assert torch.allclose(grid[0, 0], two_parameter.losses(weights, batch, classes.label_vectors[None])[0], **CLOSE)
    assert grid[1, 1] < grid[0, 0]


def test_many_classes_favour_the_context_and_few_the_weights():
    """Both replicas train together; the scalars that are not trained stay."""
    configs = [ClassifyConfig(n_pairs=4, max_pairs=4, n_labels=8, d_content=31, n_classes=k) for k in (16, 2048)]
    model = two_parameter.TwoParameterConfig(learning_rate=0.02)
    classes = [draw_classes(config, 0) for config in configs]
    vectors = torch.stack([kept.label_vectors for kept in classes])
    batches = [Batches(config, kept, 0) for config, kept in zip(configs, classes, strict=True)]
    weights = replicas.stack([two_parameter.initial_weights(model, 31, 8, random_stream(0))] * 2)
    optimizer = replicas.SGD(weights, two_parameter.learning_rates(model))
    for step in range(400):
        optimizer.step(two_parameter.losses(weights, Sequences.stack([draw(step) for draw in batches]), vectors))
    every = [evaluation_sets(config, kept, 200, 0) for config, kept in zip(configs, classes, strict=True)]
    sets = {name: Sequences.stack([one[name] for one in every]) for name in every[0]}
    found = two_parameter.measure(weights, sets, vectors)
    assert found["in_context_probability"][1] > found["in_context_probability"][0] + 0.1
    assert found["in_weights_probability"][0] > found["in_weights_probability"][1] + 0.3
    assert (weights["xi"] == model.xi).all() and (weights["beta_2"] == model.beta_2).all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"beta_1": math.inf}, "beta_1 is inf"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"memory_width": -1}, "memory_width is -1"),
        ({"trained": ["gamma"]}, "trained has 'gamma'; there are beta_1, alpha, beta_2, xi"),
    ],
)
def test_two_parameter_settings(changes, says):
    with pytest.raises(ConfigError, match=says):
        two_parameter.TwoParameterConfig(**changes).check()


# ------------------------------------------------------------------------------------------------ nested logits


def starts(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_nested_gradient_is_the_loss_s():
    config = nested.NestedConfig(5.0, 3.0, 7.0)
    at = [starts(0.3, -1.0).requires_grad_(), starts(1.1, 0.2).requires_grad_(), starts(2.0, 0.5).requires_grad_()]
    expected = torch.autograd.grad(nested.loss(config, *at).sum(), at)
    for ours, theirs in zip(nested.gradient(config, *at), expected, strict=True):
        assert torch.allclose(ours, theirs)


def test_nested_plateau_and_limits():
    config = nested.NestedConfig(16.0, 7.0, 24.0)
    assert nested.loss(config, starts(0), starts(0), starts(0)).item() == pytest.approx(math.log(32))
    assert nested.loss(config, starts(0), starts(0), starts(300)).item() == pytest.approx(math.log(8), abs=1e-6)
    assert nested.loss(config, starts(30), starts(50), starts(50)).item() < 1e-6


def test_flow_agrees_with_small_steps_of_descent():
    config = nested.NestedConfig()
    start = starts(0.5), starts(0.5), starts(0.1)
    flowed = nested.flow(config, *start, until=20.0)
    stepped = nested.descend(config, *start, n_steps=20_000, learning_rate=1e-3)
    assert flowed.time[-1].item() == pytest.approx(20.0)
    for name in ("beta_1", "alpha", "xi"):
        assert getattr(flowed, name)[-1].item() == pytest.approx(getattr(stepped, name)[-1].item(), rel=1e-2)


def test_jump_is_predicted():
    config = nested.NestedConfig()
    grid = torch.meshgrid(starts(-5, -3, -1), starts(0, 1), starts(0.1, 2), indexing="ij")
    start = [part.flatten() for part in grid]
    predicted, closed = nested.jump_time(config, *start), nested.jump_time(config, *start, closed_form=True)
    trajectory = nested.flow(config, *start, until=2 * predicted.max().item())
    seen = nested.first_passage(trajectory.time, trajectory.shares(config)[2])
    assert (predicted / seen - 1).abs().max() < 0.06
    assert (closed / seen - 1).abs().max() < 0.06


def test_outer_logit_is_learned_first_and_the_inner_two_together():
    """Where the plateau is long enough for the outer one, which grows like a logarithm."""
    config, start = nested.NestedConfig(), (starts(-6, -5, -5), starts(0, 0, 1), starts(0.1, 0.1, 1))
    order = nested.order(config, nested.flow(config, *start, until=2 * nested.jump_time(config, *start).max().item()))
    assert (order["context_label"] < 0.5 * order["correct_label_attention"]).all()
    both = torch.stack((order["correct_label_attention"], order["previous_token_attention"]))
    assert (both.diff(dim=0).abs() < 0.1 * both.mean(0)).all()


def test_noise_leaves_the_mean_and_is_seeded():
    config, start = nested.NestedConfig(), (starts(0), starts(0.5), starts(1))
    runs = [nested.descend(config, *start, 50, 0.01, noise=0.1, seed=seed).alpha for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_first_passage_interpolates_and_knows_never():
    time = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    value = torch.tensor([[0.0, 0.0], [0.25, 0.1], [0.75, 0.2]])
    found = nested.first_passage(time, value)
    assert found[0].item() == 1.5 and math.isnan(found[1])


def test_nested_settings():
    with pytest.raises(ConfigError, match="n1 is -1"):
        nested.NestedConfig(n1=-1).check()
    with pytest.raises(ConfigError, match="beta_1 is empty"):
        nested.NestedConfig(beta_1=[]).check()
