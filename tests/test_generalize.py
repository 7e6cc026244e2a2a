"""Line 4: scores on hand-made patterns, prompts that say what they claim, controls that are what chance gives."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small_config
from hand_built import induction_model
from hand_made import write_table

from induction_cli.config import ConfigError, GeneralizeConfig, TrainConfig
from induction_cli.data import train_tokenizer
from induction_cli.evaluation.sources import Encoded
from induction_cli.evidence.generalize import behaviour_rows, induction_heads, other_heads
from induction_cli.evidence.generalize import run as generalize
from induction_cli.generality.few_shot import effect, pattern_answers, random_sets, removal, repeat_gain
from induction_cli.generality.parallel_text import (
    FOLDERS,
    OFTEN,
    help_pairs,
    learned_lexicon,
    paragraphs,
    sentence_pairs,
)
from induction_cli.generality.probes import (
    DEFINITIONS,
    Behaviour,
    Probe,
    behaviour,
    copying_behaviour,
    eigenvalue_behaviour,
    prefix_probe,
    repeat_pairs,
    unit_means,
)
from induction_cli.generality.prompts import (
    CATEGORIES,
    FIRST,
    LONGEST,
    SECOND,
    Line,
    Prompt,
    Translation,
    align,
    answer_tokens,
    attention_to,
    pattern_lines,
    pattern_prompt,
    stranger_prompt,
    strangers,
    translation,
    translation_prompt,
    words,
)
from induction_cli.measures import attention
from induction_cli.measures.circuits import copying_eigenvalue_statistic, ov_eigenvalues
from induction_cli.measures.components import copying
from induction_cli.measures.controls import against_layer, corrected_99, corrected_errors
from induction_cli.models.transformer import Transformer
from induction_cli.page.viewer import Example, attention_page, packed
from induction_cli.runs.run_dir import RunDir

pytestmark = pytest.mark.slow

N_POS, N_HEADS = 61, 3
KNOWN: dict[str, int] = {}  # the tokens of `by_word`


def by_word(text: str) -> Encoded:
    """A tokenizer whose tokens are words and digits, each with the space before it, and single signs."""
    found = list(re.finditer(r" ?[^\W\d_]+| ?\d|[^\w]", text))
    ids = [KNOWN.setdefault(match[0], 10 + len(KNOWN)) for match in found]
    return Encoded(ids, [match.span() for match in found])


def by_letter(text: str) -> Encoded:
    return Encoded([ord(c) for c in text], [(i, i + 1) for i in range(len(text))])


def looking_at(targets: dict[int, list[int]], n_pos: int = N_POS) -> torch.Tensor:
    """[1, 1, query, key]: attention shared evenly among the keys; other queries look at themselves."""
    pattern = torch.eye(n_pos)
    for query, keys in targets.items():
        pattern[query] = 0
        pattern[query, keys] = 1 / len(keys)
    return pattern[None, None]


def perfect(prompt: Prompt, shift: int = 0) -> torch.Tensor:
    targets: dict[int, list[int]] = {}
    for query, key, _ in prompt.targets:
        targets.setdefault(query, []).append(key + shift)
    return looking_at(targets, len(prompt.tokens))


# ------------------------------------------------------------------------------------------------ scores


def test_attention_to_known_answers():
    pattern = looking_at({5: [2], 7: [1, 3]}, 11).repeat(2, N_HEADS, 1, 1)
    pattern[1, 2] = torch.eye(11)
    pairs = [[(5, 2, 0.5), (7, 1, 0.5)], [(5, 2, 1.0)]]
    expected = torch.tensor([[0.75, 0.75, 0.75], [1.0, 1.0, 0.0]])
    torch.testing.assert_close(attention_to(pattern, pairs), expected)
    assert torch.equal(attention_to(pattern, [[], []]), torch.zeros(2, N_HEADS))


def test_repeat_pairs_are_prefix_matching():
    pattern = torch.rand(2, N_HEADS, 53, 53, generator=torch.Generator().manual_seed(0)).tril()
    pattern = pattern / pattern.sum(-1, keepdim=True)
    for length, repeats in ((13, 4), (26, 2)):
        score = attention_to(pattern, [repeat_pairs(length, repeats)] * 2)
        torch.testing.assert_close(score, attention.prefix_matching(pattern, length))


def test_a_perfect_induction_head_scores_one_in_a_model():
    model = induction_model()
    counts = torch.arange(60).flip(0) + 1
    source = SimpleNamespace(counts=counts, start_token=0)
    from induction_cli.evaluation.sources import Source

    source.repeats = lambda *args, **options: Source.repeats(source, *args, **options)
    found = behaviour(
        model, prefix_probe(source, model, GeneralizeConfig(n_sequences=3)), GeneralizeConfig(batch_size=2), ""
    )
    assert found.value[:, 1, 0].min() > 0.999 and found.value[:, 1, 1].max() < 0.1
    assert found.control[:, 1, 0].max() < 0.2
    short = SimpleNamespace(n_ctx=50)
    assert "the context holds 50" in prefix_probe(source, short, GeneralizeConfig()).note


def test_units_are_means_of_their_prompts():
    scores = torch.arange(6.0)[:, None, None]
    assert unit_means(scores, [0, 1, 2, 0, 1, 2]).flatten().tolist() == [1.5, 2.5, 3.5]


def test_copying_reads_only_the_columns_it_needs():
    model = Transformer(small_config(d_vocab=60, n_ctx=25), seed=3)
    for block in model.blocks:
        block.attention.W_O.data.normal_(generator=torch.Generator().manual_seed(1))
    source = SimpleNamespace(counts=torch.arange(60) + 1)
    config = GeneralizeConfig(n_sequences=3)
    found = copying_behaviour(source, model, config)
    from induction_cli.evaluation.scores import random_tokens

    tokens, weights = random_tokens(source.counts, 3, seed=config.seed), model.head_weights(1)
    with torch.no_grad():
        _, kept = model(tokens, record=("pattern", "z"))
        for asked, value in ((tokens, found.value), (tokens.roll(1, 0), found.control)):
            expected = copying(kept.pattern[1], kept.z[1], weights.W_O, model.unembedding(), asked)
            torch.testing.assert_close(value[:, 1], expected, atol=1e-4, rtol=0)


def test_eigenvalues_are_those_of_the_whole_circuit():
    model = Transformer(small_config(d_vocab=60), seed=3)
    w = model.head_weights(1)
    expected = copying_eigenvalue_statistic(ov_eigenvalues(model.embedding(), w.W_V, w.W_O, model.unembedding()))
    torch.testing.assert_close(eigenvalue_behaviour(model).value[0, 1], expected, atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------------ pattern matching


def test_lines_are_of_their_categories_and_no_word_comes_twice():
    random = np.random.default_rng(0)
    for n_lines in (5, 11, LONGEST):
        lines = pattern_lines(n_lines, random)
        for line in lines:
            first, second = CATEGORIES[line.category]
            assert line.words[0] in FIRST[first] and line.words[1] in SECOND[second]
        used = [word for line in lines for word in line.words]
        assert len(lines) == n_lines and len(set(used)) == len(used)
    with pytest.raises(ValueError, match=f"2 to {LONGEST}"):
        pattern_lines(LONGEST + 1, random)
    assert Line(("June", "grape"), 1).text() == "June grape: 1"


def test_pattern_prompt_known_answers():
    lines = [Line(("June", "bird"), 0), Line(("red", "pear"), 3), Line(("May", "dog"), 0), Line(("July", "cat"), 0)]
    made = pattern_prompt(lines, by_word, 7)
    # tokens: start, then 'June' ' bird' ':' ' 0' '\n' ...: five a line, the answer fourth, the colon before it
    assert made.prompt.tokens[0] == 7 and len(made.prompt.tokens) == 21 and made.literal == 0
    assert made.prompt.targets == [(13, 4, 0.5), (18, 4, 0.5), (18, 14, 0.5)]
    control = {(query, key): weight for query, key, weight in made.prompt.control}
    assert control == {(13, 4): 0.25, (13, 9): 0.25} | {(18, key): pytest.approx(1 / 3) for key in (4, 9, 14)}
    assert [(query, category) for query, _, category in made.answers] == [(3, 0), (8, 3), (13, 0), (18, 0)]
    score = [attention_to(perfect(made.prompt, shift), [made.prompt.targets]).item() for shift in (0, 1, -1)]
    assert score == [1, 0, 0]


def test_a_head_blind_to_categories_scores_its_control():
    random, value, control = np.random.default_rng(1), [], []
    for _ in range(40):
        made = pattern_prompt(pattern_lines(16, random), by_word, 7)
        keys = [query + 1 for query, *_ in made.answers]
        blind = looking_at({query: [k for k in keys if k <= query] or [0] for query, *_ in made.answers}, 81)
        value.append(attention_to(blind, [made.prompt.targets]).item())
        control.append(attention_to(blind, [made.prompt.control]).item())
    assert value == pytest.approx(control, abs=1e-5)  # it looks at all answers alike, so exactly
    assert 0.2 < np.mean(value) < 0.45


def test_the_control_is_chance_for_a_head_that_looks_at_every_answer_once():
    """As a head does that prefers what it has not seen; with balanced categories it would be above its control."""
    random, excess = np.random.default_rng(1), []
    for _ in range(400):
        made = pattern_prompt(pattern_lines(16, random), by_word, 7)
        looks = {
            query: [q + 1 for n, (q, _, c) in enumerate(made.answers[:i]) if c not in {a[2] for a in made.answers[:n]}]
            for i, (query, _, _) in enumerate(made.answers)
        }
        once = looking_at({query: keys or [0] for query, keys in looks.items()}, 81)
        score = [attention_to(once, [pairs]).item() for pairs in (made.prompt.targets, made.prompt.control)]
        excess.append(score[0] - score[1])
    assert abs(np.mean(excess)) < 3 * np.std(excess) / 20


def test_lines_that_share_tokens_do_not_count():
    lines = [Line(("June", "bird"), 0), Line(("May", "dog"), 0), Line(("red", "pear"), 3), Line(("July", "cat"), 0)]
    made = pattern_prompt(lines, by_letter, 7)
    pieces = [{*line.words[0], *line.words[1]} for line in lines]
    assert pieces[0] & pieces[3] and not pieces[0] & (pieces[1] - {"d"})
    assert made.literal == 1  # every line has at least the space in common
    assert made.prompt.targets == []


def test_answer_tokens():
    random = np.random.default_rng(0)
    made = [pattern_prompt(pattern_lines(8, random), by_letter, 7) for _ in range(3)]
    assert answer_tokens(made) == [ord(c) for c in "0123"]
    assert answer_tokens(made[:0]) is None

    def split_three(text: str) -> Encoded:  # ' 0' is a token, ' 3' is two: the token before the answer tells
        found = list(re.finditer(r" [0-2]|.|\n", text))
        return Encoded([KNOWN.setdefault(match[0], 10 + len(KNOWN)) for match in found], [m.span() for m in found])

    lines = [Line(("May", "dog"), 0), Line(("May", "fig"), 1), Line(("red", "dog"), 2), Line(("red", "fig"), 3)]
    assert answer_tokens([pattern_prompt(lines, split_three, 7)]) is None
    assert answer_tokens([pattern_prompt(lines, split_three, 7, separator=":")]) is not None
    all_alike = lambda text: Encoded([5] * len(text), by_letter(text).spans)  # noqa: E731
    assert answer_tokens([pattern_prompt(pattern_lines(8, random), all_alike, 7)]) is None


class Answering:
    """Gives the token that `answer` says comes next a logit of 5; `answer` {(row, pos): token}."""

    n_layers, n_heads = 1, 1

    def __init__(self, answer, d_vocab=200):
        self.answer, self.d_vocab = answer, d_vocab

    def __call__(self, tokens, patch=None):
        logits = torch.zeros(*tokens.shape, self.d_vocab)
        for (row, pos), token in self.answer.items():
            logits[row, pos, token] = 5
        return logits


def test_accuracy_counts_the_second_half():
    made = pattern_prompt(pattern_lines(8, np.random.default_rng(0)), by_letter, 7)
    asked = made.answers[4:]
    right = {(0, query): token for query, token, _ in asked}
    scores = pattern_answers(Answering(right), [made], [48, 49, 50, 51], 2)
    assert scores["pattern_accuracy"].item() == scores["pattern_accuracy_all"].item() == 1
    assert scores["pattern_log_probability"].item() == pytest.approx(-math.log(1 + 3 * math.exp(-5)), abs=1e-5)
    one_wrong = right | {(0, asked[0][0]): 48 + (asked[0][2] + 1) % 4}
    assert pattern_answers(Answering(one_wrong), [made], [48, 49, 50, 51], 2)["pattern_accuracy"].item() == 0.75


def test_repeat_gain_known_answer():
    passage = [3, 5, 7]
    doubled = torch.tensor([[0, *passage, *passage]])
    knows_second = Answering({(0, 4): 5, (0, 5): 7}, d_vocab=11)
    expected = math.log(11) + math.log(math.exp(5) / (math.exp(5) + 10))
    assert repeat_gain(knows_second, doubled, 2)["repeat_gain"].item() == pytest.approx(expected, abs=1e-5)


# ------------------------------------------------------------------------------------------------ translation


def test_alignment_on_examples():
    lexicon = {"chat": "cat", "noir": "black", "un": "a", "chien": "dog", "et": "and"}
    french, english = ["un", "chat", "et", "un", "chien", "noir"], ["a", "cat", "and", "a", "black", "dog"]
    assert align(french, english, lexicon) == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 5), (5, 4)]
    assert align(["rien"], english, lexicon) == []
    assert [word for word, *_ in words("L'eau est-elle 3 fois là?")] == ["l", "eau", "est", "elle", "fois", "là"]


def test_translation_prompt_known_answers():
    made = translation("The black cat.", "Le chat noir.", "fr", {"chat": "cat", "noir": "black"}, by_word)
    # EN : | The black cat . newline -> 0..6;  FR : | Le chat noir . -> 0..5
    assert made.links == [(3, 4), (4, 3)]
    prompt = translation_prompt(made, 7)
    assert prompt.tokens == [7, *made.source, *made.translation]
    assert prompt.targets == [(11, 6, 0.5), (12, 5, 0.5)]  # the tokens after 'cat' (5) and 'black' (4)
    assert [attention_to(perfect(prompt, s), [prompt.targets]).item() for s in (0, 1, -1)] == [1, 0, 0.0]


def test_the_control_looks_after_aligned_words_of_another_sentence():
    pair = Translation(list(range(10)), [50, 51, 52], [(1, 3), (2, 6)])
    other = Translation(list(range(20, 40)), [60], [(0, 5), (0, 11), (0, 18)])
    prompt = stranger_prompt(pair, other, 7)
    assert prompt.tokens == [7, *range(20, 40), 50, 51, 52]
    assert prompt.targets == [(22, 7, 0.5), (23, 13, 0.5)]  # 0.3 is nearest 5 of 20, 0.6 nearest 11 of 20


def test_words_that_share_a_token_are_left_out():
    same = translation("The train left.", "Le train partait.", "fr", {"train": "train", "partait": "left"}, by_word)
    assert len(same.links) == 1
    assert translation("The cat.", "Le chat.", "fr", {"chat": "cat"}, by_letter).links == []


def test_the_sentence_pairs():
    data = sentence_pairs()
    assert len(data["sentences"]) >= 60
    assert len({sentence["en"] for sentence in data["sentences"]}) == len(data["sentences"])
    for language in ("fr", "de"):
        lexicon, used = data["lexicon"][language], set()
        english = {word for sentence in data["sentences"] for word, *_ in words(sentence["en"])}
        for sentence in data["sentences"]:
            translated = [word for word, *_ in words(sentence[language])]
            used |= set(translated)
            assert len(align(translated, [word for word, *_ in words(sentence["en"])], lexicon)) >= 3, sentence
        assert set(lexicon) <= used
        assert {meaning for meanings in lexicon.values() for meaning in meanings.split()} <= english


PAGE = '<p id="par_id{}" class="paragraph">{}</p>'
WORDS = {"en": "cat dog house tree", "fr": "chat chien maison arbre", "de": "Katze Hund Haus Baum"}


def a_help(folder):
    """LibreOffice's help in small: sentences of two random nouns each, among the same other words."""
    random, frame = (
        np.random.default_rng(0),
        {"en": "The {} and the {} are {} here.", "fr": "Le {} et la {} sont {} là."},
    )
    frame["de"] = "Die {} und der {} sind {} hier."
    for page in range(40):
        i, j = random.permutation(4)[:2]
        for language, inside in FOLDERS.items():
            nouns = WORDS[language].split()
            text = frame[language].format(f"<b>{nouns[i]}</b>", nouns[j], page)
            path = folder / inside / "text" / f"{page}.html"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(PAGE.format(1, text) + PAGE.format(2, "Not translated, so it is left out."), "utf-8")
    return folder


def test_pairs_of_libreoffices_help_and_the_lexicon_learned_of_them(tmp_path):
    assert paragraphs(PAGE.format(7, "A <i>b&amp;c</i>\n  d")) == {"par_id7": "A b&c d"}
    found = help_pairs(a_help(tmp_path))
    assert len(found["sentences"]) == 40 and {*found["sentences"][0]} == {"en", "fr", "de"}
    for language, nouns in WORDS.items():
        if language != "en":
            known = found["lexicon"][language]
            assert [known[noun.lower()] for noun in nouns.split()] == WORDS["en"].split()
    assert help_pairs(tmp_path) == found
    with pytest.raises(ConfigError, match=r"pairs_folder: .* has no folder en-US"):
        help_pairs(tmp_path / "nowhere")


def test_a_lexicon_is_of_words_that_come_together_more_than_apart():
    pairs = [
        ("red cat", "chat rouge"),
        ("red dog", "chien rouge"),
        ("blue dog", "chien bleu"),
        ("blue cat", "chat bleu"),
    ]
    assert learned_lexicon(pairs * OFTEN) == {"chat": "cat", "chien": "dog", "rouge": "red", "bleu": "blue"}
    assert learned_lexicon(pairs) == {}  # too few to tell


def test_strangers_are_other_sentences_of_the_nearest_length():
    pairs = [Translation([0] * length, [], []) for length in (5, 5, 9, 8, 30)]
    assert strangers(pairs, [0, 0, 1, 2, 3], np.random.default_rng(0)) == [3, 3, 3, 2, 2]


# ------------------------------------------------------------------------------------------------ statistics


def test_corrected_bar_holds_chance_and_lets_effects_through():
    generator, wrong = torch.Generator().manual_seed(0), 0
    for seed in range(40):
        excess = torch.randn(20, 5, 7, generator=generator)
        wrong += bool((excess.mean(0) > corrected_99(excess, seed)).any())
    assert wrong <= 3  # one in a hundred is expected, among 35 heads at once
    excess[:, 3, 2] += 3
    above = excess.mean(0) > corrected_99(excess)
    assert above[3, 2] and above.sum() == 1
    assert corrected_99(excess[:1]).isnan().all()
    assert torch.equal(corrected_99(torch.zeros(4, 2, 3)), torch.zeros(2, 3))


def test_corrected_errors_are_on_the_side_that_the_bar_says():
    generator = torch.Generator().manual_seed(0)
    for seed in range(20):
        excess = torch.randn(20, 5, 7, generator=generator)
        excess[:, 0, 0] += 0.6
        errors, bar = corrected_errors(excess, seed), corrected_99(excess, seed)
        clear = (errors - 0.01).abs() > 0.003
        assert torch.equal((errors < 0.01)[clear], (excess.mean(0) > bar)[clear])
    assert corrected_errors(excess[:1]).isnan().all()
    assert torch.equal(corrected_errors(torch.zeros(4, 2, 3)), torch.ones(2, 3))


def test_rows_say_value_control_and_what_does_not_apply():
    value = torch.rand(9, 2, N_HEADS, generator=torch.Generator().manual_seed(0))
    made = {name: Behaviour(value, value * 0.1) for name in DEFINITIONS}
    made["translation"] = Behaviour(note="not applicable: too short")
    made["copying_eigenvalues"] = Behaviour(value[:1])
    table = behaviour_rows(made, SimpleNamespace(n_layers=2, n_heads=N_HEADS))
    assert len(table) == len(DEFINITIONS) * 2 * N_HEADS
    row = table[(table.behaviour == "prefix_matching") & (table.layer == 1) & (table["head"] == 2)].iloc[0]
    assert row["value"] == pytest.approx(value[:, 1, 2].mean().item()) and row.excess == pytest.approx(
        0.9 * row["value"]
    )
    assert row.low <= row["value"] <= row.high and row.units == 9
    missing = table[table.behaviour == "translation"]
    assert (
        missing.value.isna().all() and (missing.note == "not applicable: too short").all() and not missing.above.any()
    )


def test_induction_heads_match_prefixes_and_copy():
    values = {"prefix_matching": [0.9, 0.8, 0.2, 0.4], "copying_eigenvalues": [0.5, -0.1, 0.9, 0.3]}
    rows = [(0, head, name, value) for name, column in values.items() for head, value in enumerate(column)]
    table = pd.DataFrame(rows, columns=["layer", "head", "behaviour", "value"])
    assert induction_heads(table) == [(0, 0), (0, 3)]
    table.loc[table.behaviour == "copying_eigenvalues", "value"] = math.nan  # weights not known: prefix matching alone
    assert induction_heads(table) == [(0, 0), (0, 1), (0, 3)]


def test_against_the_other_heads_of_a_layer():
    scores = torch.zeros(2, 2, 3)
    scores[:, 1] = torch.tensor([5.0, 1.0, 3.0])
    assert against_layer(scores, [(1, 0)]).tolist() == [3, 3]
    assert against_layer(scores, [(1, 0), (1, 1), (1, 2)]).tolist() == [3, 3]  # none left in the layer: all others


def test_heads_to_draw_from_do_not_match_prefixes():
    rows = [(0, head, "prefix_matching", value) for head, value in enumerate([0.9, 0.1, 0.4, 0.2])]
    table = pd.DataFrame(rows, columns=["layer", "head", "behaviour", "value"])
    assert other_heads(table, [(0, 0)]) == [(0, 1), (0, 3)]  # L0H2 matches prefixes, whether it copies or not
    assert other_heads(table, [(0, 3)]) == [(0, 1)]


def test_random_sets():
    removed, others = [(1, 0), (1, 1)], [(0, h) for h in range(5)] + [(1, h) for h in range(2, 5)]
    free = random_sets(removed, others, 6, False, 0)
    assert len(free) == 6 and all(len(set(heads)) == 2 and set(heads) <= set(others) for heads in free)
    same = random_sets(removed, others, 6, True, 0)
    assert len(same) == 3 and all(layer == 1 for heads in same for layer, _ in heads)  # there are only three
    assert random_sets(removed, others[:6], 6, True, 0)[0][-1] == (1, 2)  # one left there, one from elsewhere


def test_effect_known_answer():
    clean = torch.full((5,), 0.9)
    found = effect(clean, clean - 0.5, torch.stack([clean - 0.1, clean - 0.3, clean - 0.6]))
    assert found["lost_induction"] == pytest.approx(0.5) and found["lost_random"] == pytest.approx(1 / 3)
    assert found["difference"] == pytest.approx(1 / 6) and math.isnan(found["low"])  # too few prompts and draws
    assert found["beyond"] == pytest.approx(2 / 3) and found["draws"] == 3
    clean = torch.full((9,), 0.9)
    found = effect(clean, clean - 0.5, torch.stack([clean - lost for lost in (0.1, 0.3, 0.6)] * 3))
    assert found["low"] < found["difference"] < found["high"]


def test_removal_takes_heads_out():
    model = SimpleNamespace(n_layers=2, n_heads=3)
    assert removal(model, []) is None
    assert removal(model, [(0, 1), (1, 2)]).head_scale.tolist() == [[1, 0, 1], [1, 1, 0]]


# ------------------------------------------------------------------------------------------------ the viewer


def an_example() -> Example:
    tokens = ["<|endoftext|>", " a", "</script><img src=x>", "\n"]
    pattern = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 1.0, 0, 0], [0.2, 0.2, 0.6, 0]])
    return Example("Title & more", "remark", tokens, [("L0H1 0.50", "note")], pattern[None], [(2, 1)])


def test_patterns_are_packed_as_small_whole_numbers():
    import base64

    assert list(base64.b64decode(packed(an_example().patterns[0]))) == [255, 128, 128, 0, 255, 0, 51, 51, 153, 0]


def test_the_page_asks_for_nothing_and_no_text_breaks_it():
    page = attention_page("A <model>", [an_example()])
    assert "default-src 'none'" in page and "A &lt;model&gt;" in page
    for outside in (
        "http://",
        "https://",
        "//cdn",
        "@import",
        "url(",
        '<link rel="s',
        "<img",
        "fetch(",
        "XMLHttpRequest",
    ):
        assert outside not in page
    assert not re.search(r"<[^>]+\b(src|href)=(?!\"data:,\")", page)
    assert (
        page.count("</script>") == page.count("<script") == 2
        and "script-src 'sha256-" in page
        and "\\u003c/script>" in page
    )
    assert "prefers-color-scheme: dark" in page


# ------------------------------------------------------------------------------------------------ the room


@pytest.mark.parametrize(
    "wrong", [{"n_prompts": 1}, {"n_lines": 3}, {"n_pairs": 1}, {"top_k": 0}, {"n_draws": -1}, {"batch_size": -1}]
)
def test_settings_that_cannot_be_used(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        GeneralizeConfig(run_dir="x", **wrong).check()


def a_run(folder, n_ctx: int, monkeypatch) -> RunDir:
    """A run of a random model, with held-out text that needs no corpus."""
    text = "May dog:0\nred fig:1\nThe cat and the black dog.\n" * 9 + "".join(FIRST["month"] + SECOND["fruit"])
    tokenizer = train_tokenizer(iter([text]), 290)
    run = RunDir(folder)
    config = TrainConfig(model=small_config(d_vocab=290, n_ctx=n_ctx))
    run.write_config(config)
    run.write_meta(status="done")
    run.write_tokenizer(tokenizer.to_str())
    write_table(run, "token_counts", pd.DataFrame({"count": np.arange(290) + 1}))
    run.write_snapshot(Transformer(config.model, seed=1).state_dict(), 5, 500)
    tokens = np.array(tokenizer.encode(text).ids)
    corpus = SimpleNamespace(tokens=lambda split: tokens)
    monkeypatch.setattr("induction_cli.evaluation.sources.open_corpus", lambda *_: corpus)
    return run


SMALL = {"n_sequences": 2, "n_passages": 3, "n_pairs": 3, "n_prompts": 2, "n_lines": 5, "passage_length": 20}


def test_every_table_plot_and_the_page(tmp_path, monkeypatch):
    run = a_run(tmp_path / "run", 256, monkeypatch)
    monkeypatch.setattr("induction_cli.evidence.generalize.induction_heads", lambda table: [(1, 0)])  # to be removed
    config = GeneralizeConfig(run_dir=str(run.path), n_draws=2, top_k=1, device="cpu", **SMALL)
    generalize(config, tmp_path / "out")
    out = RunDir(tmp_path / "out")
    heads = out.table("head_behaviours")
    assert set(heads.behaviour) == set(DEFINITIONS) and len(heads) == len(DEFINITIONS) * 6
    assert heads[heads.behaviour == "literal_copying"].value.between(0, 1).all()
    assert set(out.table("claims").claim) == {"4a", "4b", "4c", "4d", "6d"}
    nulls = out.table("null_behaviours")
    assert set(nulls.model) == {"random weights", "shuffled heads"} and len(nulls) == 2 * 5 * 6  # behaviours, heads
    statistics = out.table("claims").statistic
    for null in ("random_weights", "shuffled_heads"):
        assert f"literal_copying_heads_above_control_with_{null}" in set(statistics)
    source = out.table("source").iloc[0]
    assert (source.source, source.pretrained, source.seed, source.tokens) == ("run", False, 0, 500)
    assert heads[heads.head_type == "induction"].groupby(["layer", "head"]).ngroups == 1
    assert {"none", "induction", "random"} <= set(out.table("few_shot").removed)
    assert set(out.table("few_shot_effect").task) >= {"repeat_gain"}
    assert "L1H0" not in " ".join(out.table("few_shot").query("removed == 'random'")["heads"])
    for plot in ("head_behaviours", "few_shot"):
        assert (out.path / "plots" / f"{plot}.png").stat().st_size > 5000
    assert re.search(r'"name":"L\dH\d', (out.path / "attention.html").read_text())
    generalize(config, tmp_path / "again")
    for table in ("head_behaviours", "few_shot"):
        assert RunDir(tmp_path / "again").table_file(table).read_bytes() == out.table_file(table).read_bytes()


def test_a_short_context_says_what_does_not_apply(tmp_path, monkeypatch):
    run = a_run(tmp_path / "run", 30, monkeypatch)
    found = generalize(GeneralizeConfig(run_dir=str(run.path), device="cpu", **SMALL), tmp_path / "out")
    heads = RunDir(tmp_path / "out").table("head_behaviours").set_index("behaviour")
    assert (
        math.isnan(found)
        and (heads.loc["prefix_matching"].note == "not applicable: needs 51 tokens, the context holds 30").all()
    )
    assert heads.loc["copying"].value.notna().all()


def test_a_probe_that_does_not_apply_has_no_scores():
    found = behaviour(SimpleNamespace(), Probe([], [], [], "why"), GeneralizeConfig(), "")
    assert found.value is None and found.note == "not applicable: why"
