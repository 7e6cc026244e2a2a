"""From one number a seed to a verdict: intervals, thresholds from the file, looks, Holm, existence, what is missing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats
from scored_runs import BY_ID, CLAIMS_FILE, SPREAD, scored, verdict

from induction_cli import words
from induction_cli.config import ReportConfig
from induction_cli.evidence import report
from induction_cli.runs.files import beside
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts import CLAIMS, EXISTENCE, SeedEstimate, Verdict, decide, load_claims, verdicts, with_holm
from induction_cli.verdicts.claims import Claim, Part, claim_of
from induction_cli.verdicts.existence import Looked, decide_existence

NAN = float("nan")


def rule(*parts: Part, **fields) -> Claim:
    """A claim of line 1 about two layers, with the parts given."""
    return replace(BY_ID["1a"], parts=parts or (Part("x", "nats", above=0.1),), **fields)


def seeds(*values: float, part: str = "", items: int | None = None) -> list[SeedEstimate]:
    """One number a seed; nan where it is missing."""
    return [
        SeedEstimate("2 layers", seed, f"run {seed}", value, "" if np.isfinite(value) else "no window", part, items)
        for seed, value in enumerate(values)
    ]


# ------------------------------------------------------------------------------------------------ one number over seeds


def test_interval_is_students_t_over_seeds():
    found = decide(rule(), seeds(0.2, 0.3, 0.4))
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ((0.38, 0.40, 0.42), "supported"),
        ((0.01, 0.02, 0.03), "not supported"),
        ((0.01, 0.2, 0.3), "inconclusive"),
        ((0.4, 0.42), "not tested"),
        ((0.38, 0.40, NAN), "not tested"),
        ((0.38, 0.40, 0.42, NAN), "supported"),
        ((), "not tested"),
    ],
)
def test_where_the_interval_lies_decides(values, says):
    assert decide(rule(), seeds(*values)).verdict == says


def test_between_two_thresholds():
    claim = rule(Part("place", "", above=-0.25, below=1.25))
    assert decide(claim, seeds(0.4, 0.5, 0.6)).verdict == "supported"
    assert decide(claim, seeds(2.4, 2.5, 2.6)).verdict == "not supported"
    assert decide(claim, seeds(-1.2, -1.1, -1.3)).verdict == "not supported"
    assert decide(claim, seeds(1.1, 1.25, 1.4)).verdict == "inconclusive"


def test_more_evidence_decides_more():
    values = [0.05, 0.3, 0.2, 0.25, 0.15, 0.3, 0.2, 0.1, 0.25, 0.3]
    assert decide(rule(), seeds(*values[:3])).verdict == "inconclusive"
    assert decide(rule(), seeds(*values)).verdict == "supported"  # one seed of ten on the other side


def test_ratios_are_judged_on_their_logarithm():
    found = decide(rule(Part("ratio", "", scale="log", below=1)), seeds(0.25, 0.5, 1.0))
    assert found.estimate == pytest.approx(0.5)  # the geometric mean
    assert found.low * found.high == pytest.approx(0.25)


@pytest.mark.parametrize(("items", "scale"), [(16, "fisher"), (9, "identity"), (None, "fisher")])
def test_correlations_over_few_items_are_no_matter_of_fishers_z(items, scale):
    found = decide(rule(Part("r", "", scale="fisher", above=0)), seeds(0.5, 0.9, 0.7, items=items))
    assert found.scale == scale
    expected = np.tanh(np.mean(np.arctanh([0.5, 0.9, 0.7]))) if scale == "fisher" else 0.7
    assert found.estimate == pytest.approx(expected)


@pytest.mark.parametrize(("n", "says"), [(2, "not tested"), (3, "inconclusive"), (5, "inconclusive"), (6, "supported")])
def test_estimates_that_coincide_are_yes_or_no_so_six_seeds_decide(n, says):
    """All ranks first: no spread to judge by."""
    found = decide(rule(Part("rank", "", above=0.9)), seeds(*[1.0] * n))
    assert found.verdict == says
    if n > 2:
        low = 0.025 ** (1 / n)  # Clopper-Pearson, all of n
        assert (found.estimate, found.low, found.high) == pytest.approx((1, low, 1))
        assert found.threshold == (0.5,) and found.scale == "share" and f"all {n} are 1" in found.note
    assert decide(rule(Part("rank", "", above=0.9)), seeds(*[0.0] * 6)).verdict == "not supported"


def test_yes_or_no_results_are_held_against_one_half():
    claim = rule(Part("product", "", below=0), kind="yes_no")
    assert decide(claim, seeds(-1, -0.3, -1, -0.2, -1, -1)).verdict == "supported"
    assert decide(claim, seeds(-1, -1, 1, 1, -1, -1)).verdict == "inconclusive"
    assert decide(claim, seeds(1, 0.5, 1, 1, 1, 1)).verdict == "not supported"


def test_a_second_look_costs_certainty():
    once, twice = (decide(rule(looks=looks), seeds(0.2, 0.3, 0.4)) for looks in (1, 2))
    half = stats.t.ppf(1 - 0.0294 / 2, 2) * 0.1 / np.sqrt(3)
    assert twice.high - 0.3 == pytest.approx(half) and twice.high > once.high and twice.looks == 2
    with pytest.raises(ValueError, match="1a: no interval is laid down for 3 looks"):
        decide(rule(looks=3), seeds(0.2, 0.3, 0.4))


def test_all_parts_must_hold():
    claim = rule(Part("x", "", name="a", above=0), Part("x", "", name="b", below=0), Part("x", "", name="beside"))
    up, down, both = (0.9, 1.0, 1.1), (-0.9, -1.0, -1.1), (-1.0, 0.1, 1.0)

    def say(a, b) -> tuple[str, str]:
        found = decide(claim, [*seeds(*a, part="a"), *seeds(*b, part="b"), *seeds(1, part="beside")])
        return found.verdict, found.decisive.part.name

    assert say(up, down)[0] == "supported"
    assert say(up, up) == ("not supported", "b")
    assert say(both, down) == ("inconclusive", "a")
    assert say(both, up) == ("not supported", "b")
    assert say(up, down[:2]) == ("not tested", "b")
    assert say(down, down[:2]) == ("not supported", "a")


def test_what_is_missing_is_said_with_the_command_that_supplies_it():
    claim = rule(command="make evidence-1")
    assert decide(claim, []).missing == "no run of 2 layers here, 3 seeds are needed: make evidence-1"
    assert decide(claim, seeds(0.4)).missing == "2 more seeds (has 1): make evidence-1"
    found = decide(claim, seeds(0.4, NAN, NAN))
    assert found.missing == "2 more seeds (has 1; 2 could not say: no window): make evidence-1"
    assert found.estimates[1].missing == "no window" and found.n == 1


# ------------------------------------------------------------------------------------------------ many claims


def test_holm_over_the_claims_of_a_line():
    """Three claims: the clearest must beat a third of 5%, the next a half, the last all of it."""
    strong, weak, none = seeds(0.5, 0.501, 0.502), seeds(0.15, 0.2, 0.25), seeds(-1, 1, 0)
    claims = [rule(id=name) for name in "abc"]
    rows = with_holm([decide(claim, found) for claim, found in zip(claims, (strong, weak, none), strict=True)])
    assert [row.verdict for row in rows] == ["supported", "inconclusive", "inconclusive"]
    assert [row.holm for row in rows] == [True, None, None]
    fair = seeds(0.21, 0.25, 0.30)  # p between 2.5% and 5%: supported alone, not beside others
    rows = with_holm([decide(claim, found) for claim, found in zip(claims, (fair, fair, strong), strict=True)])
    assert [row.verdict for row in rows] == ["supported"] * 3
    assert [row.holm for row in rows] == [False, False, True]
    assert with_holm([decide(claims[0], fair)])[0].holm is True


def test_error_is_that_of_the_interval_that_just_touches():
    values = (0.2, 0.3, 0.4)
    p = decide(rule(), seeds(*values)).decisive.p
    half = stats.t.ppf(1 - p / 2, 2) * 0.1 / np.sqrt(3)
    assert 0.3 - half == pytest.approx(0.1)


# ------------------------------------------------------------------------------------------------ existence


def looked(run: str, errors=(0.0005,), random=(0.5,), shuffled=(0.3,)) -> Looked:
    return Looked("2 layers", None, run, tuple(errors), tuple(random), tuple(shuffled))


def test_one_head_of_one_model_is_enough_and_none_may_be_there_by_chance():
    claim = BY_ID["4b"]
    found = decide_existence(claim, [looked("a"), looked("b", errors=(0.4, 0.2))])
    assert found.verdict == "supported"
    assert found.note == "1 heads in 1 of 2 models; 0 with random weights, 0 with heads shuffled between layers"
    assert decide_existence(claim, [looked("a", errors=(0.4,))]).verdict == "not supported"
    assert decide_existence(claim, [looked("a", random=(0.0005,))]).verdict == "inconclusive"
    assert decide_existence(claim, [looked("a", random=(0.0005,)), looked("b")]).verdict == "supported"


def test_the_more_models_are_looked_at_the_more_a_head_must_show():
    claim = BY_ID["4b"]
    assert decide_existence(claim, [looked("a", errors=(0.006,))]).verdict == "supported"
    many = [looked("a", errors=(0.006,)), looked("b", errors=(0.9,))]
    assert decide_existence(claim, many).verdict == "not supported"


def test_existence_that_no_model_can_show_is_not_tested():
    found = decide_existence(BY_ID["4b"], [Looked("2 layers", 0, "a", missing="needs 101 tokens")])
    assert found.verdict == "not tested" and "1 could not say: needs 101 tokens" in found.missing
    assert found.missing.endswith("make evidence-4")


# ------------------------------------------------------------------------------------------------ the file


def changed(tmp_path: Path, claim: str, **fields) -> list[Claim]:
    """claims.yaml with other fields of one claim."""
    read = yaml.safe_load((beside("experiments") / "claims.yaml").read_text())
    for row in read["claims"]:
        if row["id"] == claim:
            (row["parts"][0] if "parts" in row and set(fields) <= {"above", "below"} else row).update(fields)
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(read))
    return load_claims(tmp_path / "claims.yaml")


def headline(claims: list[Claim], claim: str, folder: Path) -> Verdict:
    return next(row for row in verdicts([folder], claims) if row.id == claim and row.headline)


def test_a_threshold_of_the_file_decides(tmp_path):
    for seed in range(3):
        scored(tmp_path / "runs", 2, seed, window={"fall": 0.4 + SPREAD[seed]})
    assert headline(CLAIMS_FILE, "1a", tmp_path / "runs").verdict == "supported"
    assert headline(changed(tmp_path, "1a", above=0.7), "1a", tmp_path / "runs").verdict == "not supported"
    assert headline(changed(tmp_path, "1a", above=0.4), "1a", tmp_path / "runs").verdict == "inconclusive"
    assert headline(changed(tmp_path, "1a", minimum_seeds=4), "1a", tmp_path / "runs").verdict == "not tested"
    assert headline(changed(tmp_path, "1a", model_class="3 layers"), "1a", tmp_path / "runs").verdict == "not tested"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "guess"}, "claim 9a: kind is 'guess', not one of"),
        ({"source": "rumour"}, "claim 9a: source is 'rumour'"),
        ({"scale": "cubic"}, "claim 9a: scale is 'cubic'"),
        ({"above": None}, "claim 9a: no part has a threshold"),
        ({"abvoe": 1}, "claim 9a: unknown fields abvoe"),
        ({"command": ...}, "claim 9a: .*command"),
    ],
)
def test_a_rule_that_is_wrong_is_named(fields, message):
    row = {"id": "9a", "line": 9, "claim": "c", "estimate": "e", "unit": "", "above": 0, "command": "x"}
    read = yaml.safe_load((beside("experiments") / "claims.yaml").read_text())["defaults"]
    given = {key: value for key, value in (read | row | fields).items() if value is not ...}
    with pytest.raises(ValueError, match=message):
        claim_of(given)


def test_every_claim_has_what_decides_it():
    ids = [claim.id for claim in CLAIMS_FILE]
    assert len(set(ids)) == len(ids)
    of = {claim.id for claim in CLAIMS_FILE if claim.of}
    assert set(CLAIMS) | set(EXISTENCE) | of == set(ids)
    assert set(EXISTENCE) == {claim.id for claim in CLAIMS_FILE if claim.kind == "existence"}
    for claim in CLAIMS_FILE:
        assert claim.rule and claim.command and (claim.estimate or claim.of)


def test_rules_in_words_are_made_from_the_fields():
    assert BY_ID["1c"].rule == "between -0.25 and 1.25 window widths; 3 seeds or more"
    assert BY_ID["1b"].rule == "fall below 0.1 nats and S at the end between -0.15 and 0.15 nats; 3 seeds or more"
    assert BY_ID["6a"].rule == "1a and 1c supported in every class"
    assert "family-wise error of 1%" in BY_ID["4b"].rule


def test_what_the_paper_does_not_state_is_not_its_claim():
    assert {claim.id for claim in CLAIMS_FILE if claim.source == "ours" and claim.line < 7} == {"2c", "4d", "5f"}
    assert {claim.id for claim in CLAIMS_FILE if claim.source == "replication"} == {"1d", "5e"}


def test_the_first_edition_can_still_be_read():
    rows = yaml.safe_load((beside("experiments") / "claims_2026-11-21.yaml").read_text())
    assert {"1a", "8k"} <= {row["id"] for row in rows}


# ------------------------------------------------------------------------------------------------ the room


def everything(folder: Path) -> None:
    """Two deep depths and one shallow, in three seeds."""
    for seed, by in enumerate(SPREAD):
        scored(folder, 1, seed, score=-0.05 + by, slopes=(0.0, 0.0))
        for depth in (2, 3):
            fell = {"fall": 0.4 + by}
            scored(
                folder,
                depth,
                seed,
                window=fell,
                induction=500 + 100 * by,
                slopes=(0, -0.1 + by),
                score=-0.5 + by / depth,
            )


def test_every_claim_has_a_headline_row_in_the_files_order(tmp_path):
    everything(tmp_path)
    found = verdicts([tmp_path], CLAIMS_FILE)
    assert [one.id for one in found if one.headline] == [claim.id for claim in CLAIMS_FILE]
    assert all(one.missing for one in found if one.verdict == "not tested")
    assert [one.id for one in verdicts([tmp_path], CLAIMS_FILE, line=3) if one.headline] == [
        "3a",
        "3b",
        "3c",
        "3d",
        "3e",
        "3f",
    ]


def test_an_empty_folder_tests_nothing_and_says_what_would(tmp_path):
    found = verdicts([tmp_path], CLAIMS_FILE)
    assert {one.verdict for one in found} == {"not tested"}
    assert all(one.missing.endswith(one.claim.command) for one in found)


def test_report_writes_verdicts_parts_and_estimates(tmp_path, capsys):
    everything(tmp_path)
    assert report.run(ReportConfig([str(tmp_path)], explorer_runs=0, argument=1), tmp_path / "report") >= 3
    room = RunDir(tmp_path / "report")
    table = room.table("verdicts").set_index(["id", "model_class"])
    row = table.loc["1a", "2 layers"]
    assert (row.verdict, row.n, row.source, row.looks, row.rule) == ("supported", 3, "paper", 1, BY_ID["1a"].rule)
    assert row.estimate == pytest.approx(0.4) and row.above == 0.1 and row.seen_before
    assert set(table.loc["1a"].index) == {"2 layers", "3 layers"}
    assert table.loc["1f", "2 layers"].could_not_say == 3 and "pertoken-pca" in table.loc["1f", "2 layers"].why
    estimates = room.table("estimates").query("id == '1a' and model_class == '3 layers' and part == 'fall'")
    assert estimates.seed.tolist() == [0, 1, 2] and estimates.value.tolist() == pytest.approx([0.38, 0.4, 0.42])
    parts = room.table("verdict_parts").query("id == '1a' and model_class == '2 layers'")
    assert parts.part.tolist() == ["fall", "share of S", "window"]


@pytest.mark.parametrize("width", [60, 100])
def test_the_terminal_fits(tmp_path, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    everything(tmp_path)
    report.show(verdicts([tmp_path], CLAIMS_FILE))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert not re.search(r"\bnan\b|-0\.0+\b", out) and "not tested: 1f" in out
    assert "Seeds below 10 were seen before the rules were fixed" in " ".join(out.split())


def test_report_of_a_line_without_claims_is_an_empty_table(tmp_path):
    everything(tmp_path)
    assert report.run(ReportConfig([str(tmp_path)], explorer_runs=0, argument=99), tmp_path / "report") == 0
    assert RunDir(tmp_path / "report").table("verdicts").empty


def test_numbers_that_round_to_nothing():
    assert [words.number(value) for value in (0.0, -0.001, 0.25, -12.3456, 12345.6)] == [
        "0", "-0.001", "+0.25", "-12.35", "+1.23e+04",
    ]  # fmt: skip


def test_a_verdict_is_made_of_headlines_only(tmp_path):
    for seed in range(3):
        scored(tmp_path, 3, seed, window={"fall": 0.4 + SPREAD[seed]})
    assert verdict("1a", tmp_path).verdict == "not tested"
    assert verdict("1a", tmp_path, model_class="3 layers").verdict == "supported"
    assert report.run(ReportConfig([str(tmp_path)], explorer_runs=0, argument=1), tmp_path / "report") == 0
