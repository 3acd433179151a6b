"""The report in a real browser: it loads, every figure is drawn, and nothing is cut off."""

import json
import time

import pytest

from rmas_train.__main__ import main
from rmas_train.reporting.embedding import Picture, pictures_html, policy, scripts
from rmas_train.reporting.plots import plot
from rmas_train.support.output import stop_log

pytestmark = pytest.mark.slow
ANALYSES = "health,attribution,text_attribution,depth,lens,probes,confidence,messages"
WIDE, PHONE = (1200, 900), (390, 844)
FIGURES = """
return [...document.querySelectorAll('figure')].map(f => {
  const inner = f.querySelector('div').firstElementChild;
  const box = inner ? inner.getBoundingClientRect() : {width: 0, height: 0};
  return {name: f.id, state: f.dataset.state, width: box.width, height: box.height,
          shadow: !!(inner && inner.shadowRoot), caption: f.querySelector('figcaption').innerText};
});
"""


@pytest.fixture
def run_page(overrides, workspace):
    """The page of a run with every analysis."""
    run = workspace / "run"
    everything = "evaluation.systems=[start,null,shuffled,text,decoder_alone]"
    assert main([*overrides, everything, "training.outer.profile_every=1"]) == 0
    stop_log()
    typed = [f"run={run}", f"analyses=[{ANALYSES}]", "data.train=train.jsonl"]
    assert main(["stage=analyse", *typed, "analysis.column=rounds_needed"]) == 0
    stop_log()
    assert main(["stage=report", f"run_dir={run}"]) == 0
    stop_log()
    return run / "report" / "index.html"


def opened(browser, path, size, scheme="light"):
    """Load a page at a size and colour scheme; scroll until all is drawn."""
    browser.set_window_size(*size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get_log("browser")
    browser.get(f"file://{path}")
    for place in browser.find_elements("css selector", "figure"):
        browser.execute_script("arguments[0].scrollIntoView()", place)
        wait(lambda place=place: place.get_attribute("data-state") == "drawn")
    time.sleep(0.3)  # sizes settle
    return browser.execute_script(FIGURES)


def wait(is_done, tries=200):
    for _ in range(tries):
        if is_done():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come")


def check(browser, figures, width):
    assert figures and all(one["state"] == "drawn" and one["shadow"] for one in figures), figures
    assert all(one["height"] > 100 and 100 < one["width"] <= width for one in figures), figures
    assert all(one["caption"] for one in figures)
    errors = [e for e in browser.get_log("browser") if e["level"] not in ("INFO", "DEBUG")]
    assert not errors
    across = browser.execute_script("return document.documentElement.scrollWidth")
    assert across <= width, "something sticks out at the right"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_the_page_of_a_run(browser, run_page, size, scheme):
    figures = opened(browser, run_page, size, scheme)
    check(browser, figures, size[0])
    names = {one["name"] for one in figures}
    assert {"accuracy-0", "cost", "loss-0", "gradients-0", "profile-map", "profile"} <= names
    assert {"attribution-graph", "attribution", "depth", "stopping", "probes"} <= names
    text = browser.execute_script("return document.body.innerText")
    for title in ("Link health", "Attribution", "Depth", "What messages say", "Answers", "Runs"):
        assert title in text
    assert "cannot be shown" not in text
    back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    assert run_page.stat().st_size < 5_000_000


def test_the_page_of_a_sweep(browser, overrides, workspace):
    typed = [*overrides, "-m", "rounds=1,2", "seed=0,1", "training.outer.profile_every=0"]
    assert main([o for o in typed if not o.startswith("rounds=2")]) == 0
    stop_log()
    root = workspace / "run"
    found = json.loads((root / "results.json").read_text())["sweep"]
    assert found["keys"] == ["rounds"] and not found["missing"]
    assert {row["seeds"] for row in found["rows"]} == {2}
    figures = opened(browser, root / "report" / "index.html", WIDE)
    check(browser, figures, WIDE[0])
    assert "depths-0" in {one["name"] for one in figures}


def test_a_figure_is_drawn_when_it_comes_near(browser, tmp_path):
    """A page of many runs has more than a hundred figures; drawing all takes minutes."""
    made = []
    for i in range(60):
        drawn = plot("step", "loss")
        drawn.line([0, 1], [i, 0])
        made.append(Picture(f"loss-{i}", "A line.", drawn))
    path = tmp_path / "page.html"
    head = f'<!doctype html><meta charset="utf-8">{policy()}'
    path.write_text(f"{head}{pictures_html(made)}{scripts()}", encoding="utf-8")
    browser.set_window_size(*WIDE)
    browser.get(f"file://{path}")
    first, *_, last = browser.find_elements("css selector", "figure")
    wait(lambda: first.get_attribute("data-state") == "drawn")
    height = browser.execute_script("return document.body.scrollHeight")
    assert not last.get_attribute("data-state")
    browser.execute_script("arguments[0].scrollIntoView()", last)
    wait(lambda: last.get_attribute("data-state") == "drawn")
    undrawn = browser.find_elements("css selector", "figure:not([data-state])")
    assert len(undrawn) > 40
    assert browser.execute_script("return document.body.scrollHeight") == height  # nothing jumps
