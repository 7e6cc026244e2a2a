"""The page in headless Chromium: no error, no request, everything reacts, nothing overflows."""

import os
import re
from pathlib import Path

import pytest
import torch
from playwright import sync_api
from scored_runs import BY_ID
from small_report import small_report, small_runs

from induction_cli.page import Asked
from induction_cli.page import page as write_page
from induction_cli.page.viewer import Example, attention_page
from induction_cli.verdicts import Part, PartVerdict, SeedEstimate, Verdict
from induction_cli.words import short

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A page of small runs; INDUCTION_PAGE names another to look at."""
    if given := os.environ.get("INDUCTION_PAGE"):
        return Path(given).resolve()
    return small_report(small_runs(tmp_path_factory.getbasetemp() / "small_runs"), tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def browser(chromium):
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=["desktop", "dark", "phone"])
def page(request, browser, written, tmp_path):
    """The page opened, watched for errors and requests until the test is over; a screenshot is kept."""
    size = {"width": 390, "height": 844} if request.param == "phone" else {"width": 1280, "height": 900}
    opened = browser.new_page(viewport=size, color_scheme="dark" if request.param == "dark" else "light")
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))

    def only_local(route):
        if route.request.url.startswith(("file:", "data:")):
            return route.continue_()
        complaints.append(route.request.url)
        return route.abort()

    opened.route("**/*", only_local)
    opened.goto(written.as_uri())
    yield opened
    opened.screenshot(path=tmp_path / f"{request.param}.png", full_page=True)
    assert (tmp_path / f"{request.param}.png").stat().st_size > 0
    assert complaints == []
    opened.close()


def overflow(page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_nothing_overflows_even_unfolded(page):
    assert overflow(page) <= 0
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert overflow(page) <= 0
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = false)")


def test_slider_moves_through_training(page):
    scores = page.evaluate("Object.values(runs[0].measures)[0]")

    def drawn() -> list[float]:
        return [float(text.split("\n")[0]) for text in page.locator("#x-mosaic button").all_inner_texts()]

    assert drawn() == pytest.approx(scores[-1], abs=0.006)
    slider = page.locator("#x-slider")
    slider.focus()
    slider.press("Home")
    assert "snapshot 1 of" in page.locator("#x-when").inner_text()
    assert drawn() == pytest.approx(scores[0], abs=0.006)
    slider.press("ArrowRight")
    assert "snapshot 2 of" in page.locator("#x-when").inner_text()


def test_measure_run_and_text_can_be_chosen(page):
    page.select_option("#x-measure", label="previous token")
    assert page.locator("#x-mosaic-title").inner_text() == "Previous token of every head"
    n_cells = page.locator("#x-mosaic button").count()
    page.select_option("#x-run", index=1)
    assert page.locator("#x-mosaic button").count() != n_cells
    assert page.locator("#x-mosaic-title").inner_text() == "Previous token of every head"
    assert page.locator("#x-tokens span").count() > 10


def test_a_view_can_be_sent(page, browser):
    """Run, head, snapshot, measure and text are in the address, and opening it shows the same."""
    page.select_option("#x-run", index=1)
    page.select_option("#x-measure", label="previous token")
    page.locator("#x-mosaic button").nth(1).click()
    page.locator("#x-slider").press("Home")
    assert "#heads/run=1&head=L0H1&snapshot=1&measure=previous_token" in page.url
    other = browser.new_page()
    other.goto(page.url)
    for box in ("#x-mosaic-title", "#x-head", "#x-when"):
        assert other.locator(box).inner_text() == page.locator(box).inner_text()
    assert other.locator("#x-run").input_value() == "1"
    other.goto(page.url.split("#")[0] + "#heads/run=99&head=L9H9&snapshot=x&measure=nonsense")
    assert other.locator("#x-mosaic button").count() > 0
    other.close()


def test_colours_are_on_the_measures_own_scale(page):
    """A share of 0.03 looks like chance, whatever the largest of the run is."""
    assert page.evaluate("runs.map(run => run.scales.prefix_matching)") == [[0, 1], [0, 1]]
    page.evaluate("runs[0].measures.prefix_matching.at(-1).fill(0.03); document.querySelector('#x-slider').oninput()")
    shade = page.locator("#x-mosaic button").first.evaluate("one => getComputedStyle(one).backgroundColor")
    assert min(int(part) for part in re.findall(r"\d+", shade)) > 240


def test_the_axis_has_tokens(page):
    tokens = page.evaluate("[runs[0].tokens[0], runs[0].tokens.at(-1)]")
    ticks = page.locator("#x-axis span").all_inner_texts()
    assert [ticks[0], ticks[-1]] == [short(count) for count in tokens]
    assert page.locator("#x-high").inner_text() == "1" and page.locator("#x-low").inner_text() == "0"


def test_hover_shows_where_a_token_looks(page):
    token = page.locator("#x-tokens span").nth(7)
    token.scroll_into_view_if_needed()
    token.hover()
    assert page.locator("#x-said").inner_text().startswith("Token 7,")
    assert "attends to" in page.locator("#x-said").inner_text()
    assert "here" in (token.get_attribute("class") or "")
    page.select_option("#x-direction", "in")
    assert "is attended to by" in page.locator("#x-said").inner_text()


def test_shares_of_a_token_sum_to_one(page):
    page.locator("#x-tokens span").nth(9).click()
    titles = page.locator("#x-tokens span").evaluate_all("all => all.map(one => Number(one.title))")
    assert sum(titles) == pytest.approx(1, abs=0.06)  # each is rounded to 0.01
    assert titles[10:] == [0] * len(titles[10:])


def test_keys_move_between_heads_and_tokens(page):
    page.locator("#x-mosaic button").first.click()
    assert "L0H0" in page.locator("#x-head").inner_text()
    page.keyboard.press("ArrowRight")
    assert "L0H1" in page.locator("#x-head").inner_text()
    page.keyboard.press("ArrowDown")
    assert "L1H1" in page.locator("#x-head").inner_text()
    page.locator("#x-tokens span").nth(3).focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#x-said").inner_text().startswith("Token 4,")


def test_plots_enlarge_and_close(page):
    page.locator(".paper").first.click()
    dialog = page.locator("#zoom")
    assert dialog.is_visible() and dialog.locator("svg").count() == 1
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_colours_can_be_changed(page):
    def paper() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    before = paper()
    page.locator("#theme").click()
    assert paper() != before
    page.locator("#theme").click()
    assert paper() == before


def test_a_link_opens_the_claim_it_names(page):
    page.goto(page.url.split("#")[0] + "#claim-3a")
    page.wait_for_function("document.querySelector('#claim-3a').checkVisibility()")


def test_it_opens_with_the_picture_and_its_sentence(page):
    first = page.locator("main > section").first
    assert first.get_attribute("id") == "story" and first.locator("svg[role=img]").count() == 1
    assert first.locator(".finding").inner_text().startswith("With 2 layers")


@pytest.mark.parametrize("width", [1280, 390])
def test_verdicts_are_a_forest(browser, tmp_path, width):
    """A row with a number has its picture: the threshold in the middle, a dot a seed, and the same in words."""
    part = Part("fall of S", "nats", "fall", above=0.1)
    seeds = tuple(SeedEstimate("2 layers", seed, "run", value) for seed, value in enumerate((0.3, 0.4, 0.5)))
    found = PartVerdict(part, seeds, 0.4, 0.15, 0.65, "supported", 0.01, "identity")
    verdicts = [Verdict(BY_ID["1a"], "2 layers", True, "supported", (found,), holm=True)]
    (tmp_path / "report.html").write_text(write_page([], verdicts, Asked()))
    opened = browser.new_page(viewport={"width": width, "height": 800})
    opened.goto((tmp_path / "report.html").as_uri())
    row = opened.locator("tr#claim-1a")
    assert row.locator("svg.forest .seed").count() == 3 and row.locator("svg.forest .threshold").count() == 1
    said = "fall +0.40 nats [+0.15, +0.65]; rule: above 0.1 nats"
    assert row.locator("svg.forest").get_attribute("aria-label") == said
    dots = [row.locator(f"svg.forest .{part}").first.bounding_box()["x"] for part in ("threshold", "seed", "estimate")]
    assert dots == sorted(dots) and "✓" in row.locator(".badge").inner_text() and overflow(opened) <= 0
    opened.close()


def test_a_model_of_one_snapshot_has_no_slider(page):
    """And of many heads in a row every cell shows its number on one line."""
    page.evaluate(
        """() => { const run = runs[0]; run.steps = run.steps.slice(-1); run.tokens = [null]; run.kept = [0];
        run.patterns = run.patterns.slice(-1); run.heads = 9; run.layers = 1; run.kinds = [];
        for (const name in run.measures) run.measures[name] = [Array(9).fill(0.25)];
        document.querySelector('#x-run').onchange() }"""
    )
    assert page.locator("#x-slider").is_hidden() and page.locator("#x-axis").is_hidden()
    assert page.locator("#x-mosaic button").all_inner_texts() == [".25"] * 9
    assert page.locator("#x-mosaic button").first.bounding_box()["height"] < 30
    assert page.locator("#x-head").inner_text() == "Attention of L0H0"


def test_it_prints(page):
    page.emulate_media(media="print")
    assert page.locator("#theme").is_hidden() and page.locator("#story").is_visible()
    assert overflow(page) <= 0
    page.emulate_media(media="screen")


def test_it_is_small(written):
    assert written.stat().st_size < 5_000_000


def test_everything_has_a_name(page):
    """Plots, controls and regions say what they are; text stands out from its ground by 4.5 to 1 or more."""
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, select, input, img, svg[role=img], canvas')].filter(one =>
           !(one.getAttribute('aria-label') || one.alt || one.closest('label') || one.textContent.trim())).length"""
    )
    assert unnamed == 0
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("main").count() == page.locator("h1").count() == 1
    for selector in (".badge", "small", ".hint", "a", "#x-said", ".problem", "th"):
        pairs = page.locator(selector).evaluate_all(
            """all => all.map(one => { let at = one, ground = ''; while (at && !ground) {
               const c = getComputedStyle(at).backgroundColor;
               if (!/, 0\\)$/.test(c)) ground = c; at = at.parentElement }
               return [getComputedStyle(one).color, ground].join(';') })"""
        )
        for pair in set(pairs):
            assert contrast(*pair.split(";")) >= 4.5, selector


def test_the_viewer_shades_what_a_token_attends_to(browser, tmp_path):
    pattern = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0, 1.0, 0]])
    example = Example("Title", "remark", ["<start>", "</script>", "c"], [("L0H1", "note")], pattern[None], [(2, 1)])
    (tmp_path / "attention.html").write_text(attention_page("Heads", [example]))
    opened = browser.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.goto((tmp_path / "attention.html").as_uri())
    tokens = opened.locator(".text span")
    assert tokens.all_inner_texts() == ["<start>", "</script>", "c"]
    tokens.nth(1).hover()
    assert tokens.evaluate_all("all => all.map(one => one.title)") == ["0: 0.50", "1: 0.50", "2: 0.00"]
    assert "L0H1: note" in opened.locator("output").inner_text() and complaints == []
    opened.close()


def contrast(ink: str, ground: str) -> float:
    """WCAG 2 contrast of two opaque colours, each 'rgb(r, g, b)'."""

    def luminance(colour: str) -> float:
        shares = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted([luminance(ink), luminance(ground)])
    return (light + 0.05) / (dark + 0.05)
