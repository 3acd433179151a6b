"""Interactive figures inside one HTML page that loads nothing and runs no script but its own.

Bokeh draws each when it comes near the part of the page that is seen: a page of many runs has more
than a hundred. Its library and a loader are put into the page, and the page's policy allows these
two scripts by their hashes, so that no text of a run's files can become a script. Figures are data
(``application/json``), in which no ``<`` stands.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

import bokeh
from bokeh.embed import json_item
from bokeh.models import Plot

LOADER = """
const dark = window.matchMedia('(prefers-color-scheme: dark)').matches;
document.documentElement.dataset.scheme = dark ? 'dark' : 'light';
async function draw(figure) {
  if (figure.dataset.state) return;
  figure.dataset.state = 'begun';
  try {
    const data = JSON.parse(figure.querySelector('script').textContent);
    await Bokeh.embed.embed_item(data, figure.querySelector('div'));
    figure.dataset.state = 'drawn';
  } catch (error) { figure.dataset.state = 'failed'; throw error; }
}
window.addEventListener('DOMContentLoaded', () => {
  const figures = [...document.querySelectorAll('figure')];
  const near = new IntersectionObserver(seen => {
    for (const one of seen) if (one.isIntersecting) draw(one.target);
  }, {rootMargin: '100% 0px'});
  const isSeen = one => one.getBoundingClientRect().top < 2 * window.innerHeight;
  figures.filter(isSeen).forEach(draw);  // a picture of the page waits for no observer
  figures.forEach(one => near.observe(one));
  window.addEventListener('beforeprint', () => figures.forEach(draw));
  document.documentElement.dataset.state = 'ready';
});
"""


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        name: of its place in the page.
        caption: what it shows.
        plot: Bokeh's model.
    """

    name: str
    caption: str
    plot: Plot


@cache
def library() -> str:
    """Bokeh's script."""
    path = Path(bokeh.__file__).parent / "server" / "static" / "js" / "bokeh.min.js"
    return path.read_text(encoding="utf-8")


def policy() -> str:
    """What the page may do: run the two scripts, and nothing of another address."""
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in (library(), LOADER))
    return (
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'\">"
    )


def scripts() -> str:
    return f"<script>{library()}</script><script>{LOADER}</script>"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def pictures_html(pictures: Sequence[Picture]) -> str:
    """The figures with their captions, as ``LOADER`` finds them."""
    return "".join(
        f'<figure id="{escape(p.name)}"><div style="min-height:{p.plot.height}px"></div>'
        f'<script type="application/json" class="figure">{_data(p)}</script>'
        f"<figcaption>{escape(p.caption)}</figcaption></figure>"
        for p in pictures
    )


def _data(picture: Picture) -> str:
    text = json.dumps(json_item(picture.plot))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
