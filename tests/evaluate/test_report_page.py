"""The page of a report: what it says, and how it looks and behaves in a real browser without a network.

Without a browser (see `browser` in tests/conftest.py) those tests skip.
"""

import json
import re
from pathlib import Path

import pytest

from myna.evaluate.curves import read_all
from myna.evaluate.report import RELOAD_S
from myna.evaluate.report_page import report_page
from myna.run import Run

EVIL = "<script>alert(1)<"


def charts(html: str) -> dict[str, dict]:
    found = re.findall(r'<script type="application/json">(.*?)</script>', html)
    return {chart["title"]: chart for chart in map(json.loads, found)}


def page_of(*runs: Path, **more: int) -> str:
    return report_page(read_all(runs), **more).html()


def test_a_page_holds_the_curves_the_verdict_and_the_samples(make_gpt2_run, tmp_path):
    path = make_gpt2_run(tmp_path / "run", steps=3000, hellaswag=0.27)
    Run(path).append_sample({"step": 1000, "prompt": "Hello", "text": f" {EVIL}"})
    Run(path).append_sample({"step": 2000, "prompt": "Hello", "text": " again"})
    Run(path).write_environment({"device": "H100", "command": ["train", "gpt2-124m"]})
    html = page_of(path)
    drawn = charts(html)
    assert list(drawn) == [
        "Loss, nats per token",
        "Validation loss less llm.c's at the same tokens, nats",
        "HellaSwag accuracy, mean per token",
        "Learning rate",
    ]
    loss = drawn["Loss, nats per token"]
    assert [curve["label"] for curve in loss["curves"]] == [
        "train, smoothed", "low", "high", "validation", "llm.c's GPT-2 124M on FineWeb, validation",
    ]  # fmt: skip
    assert [line["value"] for line in loss["references"]] == [3.425]
    assert loss["curves"][-1]["x"]["steps"][-1] == 3750
    lines = drawn["HellaSwag accuracy, mean per token"]["references"]
    assert [line["value"] for line in lines] == [0.25, 0.2945, 0.337]
    for words in ("On track.", "How this is judged", "step 2,000", "<dd>train gpt2-124m</dd>"):
        assert words in html
    assert html.index("step 2,000") < html.index("step 1,000")
    assert EVIL not in html
    assert "Hello &lt;script&gt;alert(1)&lt;" in html


def test_several_runs_lie_over_each_other_and_their_recipes_are_compared(make_run, tmp_path):
    runs = [
        make_run(tmp_path / "first", learning_rate=1e-3, tokenizer="bytes"),
        make_run(tmp_path / EVIL, learning_rate=2e-3, name="x"),
    ]
    html = page_of(*runs)
    drawn = charts(html)
    assert {curve["group"] for curve in drawn["Loss, nats per token"]["curves"]} == {"first", EVIL}
    assert [curve["group"] for curve in drawn["Bits per byte of the validation text"]["curves"]] == [
        "first",
        EVIL,
    ]
    assert "settings in which the recipes differ" in html
    assert '<th scope="row">learning_rate</th><td>0.001</td><td>0.002</td>' in html
    assert '<th scope="row">n_layer</th>' not in html
    assert EVIL not in html


def test_a_run_of_a_loss_alone_has_a_page(make_run, tmp_path):
    path = make_run(tmp_path / "one", steps=1)
    Run(path).environment_path.write_text("not JSON")
    Run(path).samples_path.write_text('{"step": "x", "text": 3}\n{"text": "\\ud800", "step": {}}\n{"te')
    html = page_of(path)
    assert "No step has recorded" in html
    assert "Too short to judge" in html
    assert ">Environment<" not in html
    assert "?</pre>" in html


def test_a_long_run_is_thinned_to_what_a_screen_shows(make_run, write_records, tmp_path):
    path = make_run(tmp_path / "run", steps=0)
    spike = 12_345
    records = [
        {"step": n, "tokens": n, "train_loss": 9.0 if n == spike else 3.0, "grad_norm": 1.0}
        for n in range(1, 20_001)
    ]
    write_records(path, records)
    curves = {curve["label"]: curve for curve in charts(page_of(path))["Loss, nats per token"]["curves"]}
    assert {len(curve["y"]) for curve in curves.values()} == {800}
    assert max(curves["high"]["y"]) == 9.0  # no single value is lost from the band
    assert curves["low"]["x"]["steps"][-1] == 20_000


sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")


@pytest.fixture
def opened(browser):
    """Opens a page's file without a network: (file, more of the context). It must ask for nothing, nor complain."""
    contexts, complaints, requests = [], [], []

    def open_file(path: Path, width: int = 1100, **more: object) -> "sync_api.Page":
        context = browser.new_context(viewport={"width": width, "height": 900}, **more)
        context.set_offline(True)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append("a script ran"), dialog.dismiss()))
        page.goto(path.as_uri())
        page.wait_for_selector(".uplot")
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert complaints == []
    assert all(url.startswith(("file:", "data:")) for url in requests), requests


@pytest.fixture(scope="module")
def two_runs(make_run, make_gpt2_run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    runs = [
        make_gpt2_run(folder / "beside llm.c", steps=1500, hellaswag=0.26),
        make_run(folder / EVIL, name="x"),
    ]
    for run in runs:
        Run(run).append_sample({"step": 10, "prompt": EVIL, "text": EVIL})
        Run(run).write_environment({"device": EVIL})
    report_page(read_all(runs)).write(folder / "report.html")
    return folder / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_without_a_network_and_without_faults(opened, two_runs, scheme):
    page = opened(two_runs, color_scheme=scheme)
    assert page.title() == "2 runs"
    page.locator("summary").first.click()
    found = axe.Axe().run(page).response["violations"]
    assert found == [], [(one["id"], one["impact"]) for one in found]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(246, 247, 248)", "dark": "rgb(18, 20, 23)"}[scheme]


def test_a_phone_scrolls_tables_and_not_the_page(opened, two_runs):
    page = opened(two_runs, width=360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate(
        "[...document.querySelectorAll('.scroll')].some((one) => one.scrollWidth > one.clientWidth)"
    )


# How many pixels of the first chart have the colour of the first run, in light: #0072b2.
BLUE_PIXELS = """(() => {
  const canvas = document.querySelector("canvas");
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  let n = 0;
  for (let i = 0; i < data.length; i += 4) n += data[i] === 0 && data[i + 1] === 114 && data[i + 2] === 178;
  return n;
})()"""


def test_the_mouse_shows_values_and_the_legend_switches_runs_off(opened, two_runs):
    page = opened(two_runs, color_scheme="light")
    loss = page.locator(".chart").first
    legend, button = loss.locator(".legend"), loss.get_by_role("button", name="beside llm.c")
    sync_api.expect(legend).to_contain_text("last values")
    loss.locator(".u-over").hover(position={"x": 400, "y": 50})
    sync_api.expect(legend).to_contain_text(re.compile(r"at \d+\.?\d*[KMB] tokens"))
    page.get_by_label("steps", exact=True).check()
    assert page.evaluate(BLUE_PIXELS) > 100
    button.click()
    sync_api.expect(button).to_have_attribute("aria-pressed", "false")
    sync_api.expect(legend.locator("li").first.locator("b").first).to_be_hidden()
    assert page.evaluate(BLUE_PIXELS) == 0
    page.evaluate("location.hash = '#in-words'")
    page.reload()
    page.wait_for_selector(".uplot")  # what was chosen stays
    sync_api.expect(button).to_have_attribute("aria-pressed", "false")
    assert page.evaluate(BLUE_PIXELS) == 0
    assert page.get_by_label("steps", exact=True).is_checked()


def test_a_page_that_is_written_on_reads_itself_anew_until_it_is_told_not_to(
    opened, make_run, tmp_path, browser
):
    run = make_run(tmp_path / "run", steps=20)
    report_page(read_all([run]), reload_s=RELOAD_S).write(tmp_path / "report.html")
    page = opened(tmp_path / "report.html")
    page.clock.install()
    page.reload()
    page.wait_for_selector(".uplot")
    Run(run).append_metrics({"step": 21, "tokens": 77_000, "train_loss": 3.0})
    report_page(read_all([run]), reload_s=RELOAD_S).write(tmp_path / "report.html")
    page.clock.run_for(1000 * RELOAD_S)
    sync_api.expect(page.locator("header")).to_contain_text("77K tokens")
    page.get_by_label("Read anew").uncheck()
    Run(run).append_metrics({"step": 22, "tokens": 88_000, "train_loss": 3.0})
    report_page(read_all([run]), reload_s=RELOAD_S).write(tmp_path / "report.html")
    page.clock.run_for(3000 * RELOAD_S)
    sync_api.expect(page.locator("header")).to_contain_text("77K tokens")


def test_each_dataset_of_a_mixture_has_its_own_validation_loss(make_run, tmp_path):
    path = make_run(tmp_path / "run")
    for step in (20, 40):
        Run(path).append_metrics(
            {
                "step": step,
                "tokens": 1000 * step,
                "val_loss": 3.6,
                "val_loss/web": 3.5,
                f"val_loss/{EVIL}": 4.0,
            }
        )
    (alone,) = read_all([path])
    assert {name: series.values.tolist() for name, series in alone.sources.items()} == {
        EVIL: [4.0, 4.0],
        "web": [3.5, 3.5],
    }
    title = "Validation loss of each dataset, nats per token"
    html = page_of(path)
    assert [curve["label"] for curve in charts(html)[title]["curves"]] == [EVIL, "web"]
    assert EVIL not in html
    other = make_run(tmp_path / "other")
    assert [curve["group"] for curve in charts(page_of(path, other))[title]["curves"]] == ["run", "run"]
    assert title not in charts(page_of(other))
