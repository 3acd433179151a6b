"""Texts from models, data and files reach a page or a terminal as text, never as commands."""

import base64
import hashlib
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from rmas_train.reporting.embedding import library
from rmas_train.reporting.pictures import plain
from rmas_train.reporting.report import write_report
from rmas_train.reporting.tables import terminal_table
from rmas_train.support.output import clean, one_line, say, start_log, stop_log

NASTY = (
    "</title></code></td><script>alert(1)</script><img src=x onerror=alert(1)>"
    "<a href='javascript:alert(1)'>\" onload=\"x' [red]m[/] [link=http://x]l[/link] $\\frac{$ "
    "\x1b[2J\x1b]0;t\x07\x9b31m\u202e &lt; \x00 ]]> --> <!-- "
)
TAGS = {
    *("html", "head", "body", "meta", "title", "style", "script", "div", "figure", "figcaption"),
    *("h1", "h2", "h3", "p", "i", "b", "ul", "li", "table", "tr", "th", "td", "code"),
    *("details", "summary", "pre"),
}
ATTRIBUTES = {
    *(("html", "lang"), ("meta", "charset"), ("meta", "http-equiv"), ("meta", "content")),
    *(("meta", "name"), ("div", "class"), ("figure", "id"), ("script", "type")),
    *(("script", "class"), ("pre", "class"), ("div", "style")),
}


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: dict[tuple[str, str], set[str]] = {}
        self.text, self.comments = "", 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault((tag, name), set()).add(value)

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.comments += 1


@pytest.fixture
def page(finished, tmp_path, capsys) -> tuple[str, str, str]:
    """The report's page, and what the terminal showed, of a run whose every text is hostile."""
    place, _ = finished
    name = NASTY.replace("/", "_").replace("\x00", "")[:120]  # a folder may be called so
    run = Path(shutil.copytree(place.run_dir, tmp_path / name))
    path = run / "eval" / "results.json"
    results = json.loads(path.read_text())
    for row in results["rows"]:
        row["task"] = NASTY
    results["references"] = {NASTY: {}}
    facts = {"command": NASTY, "versions": {NASTY: NASTY}, "gpu": NASTY, "cpus": 2}
    results["environment"] |= facts
    results["config"] |= {"name": NASTY, "data": {"name": NASTY, "folder": NASTY}}
    results["links"] = NASTY
    path.write_text(json.dumps(results))
    lines = (run / "eval" / "answers.jsonl").read_text().splitlines()
    lines = [json.dumps(json.loads(line) | {"text": NASTY}) for line in lines]
    (run / "eval" / "answers.jsonl").write_text("\n".join(lines))
    write_report(tmp_path)  # of a folder above, so that the run's name is in the page
    report = tmp_path / "report"
    return (report / "index.html").read_text(), capsys.readouterr().out, str(report)


def test_the_page_holds_only_its_own_tags(page):
    parsed = Page(page[0])
    assert parsed.tags <= TAGS and parsed.comments == 0
    assert set(parsed.attributes) <= ATTRIBUTES
    styles = parsed.attributes["div", "style"]
    assert all(re.fullmatch(r"min-height:\d+px", style) for style in styles), styles
    assert "alert(1)" in parsed.text, "the texts are there, as texts"
    scripts = re.findall(r"<script>(.*?)</script>", page[0], re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert len(scripts) == 2 and not any("alert(1)" in script for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    policies = parsed.attributes["meta", "content"]
    assert any(p.startswith(f"default-src 'none'; script-src {allowed};") for p in policies)
    for data in re.findall(
        r'<script type="application/json" class="figure">(.*?)</script>', page[0]
    ):
        assert "<" not in data and json.loads(data)
    own = page[0].replace(library(), "")
    assert not set(own) & set("\x00\x1b\x07\x9b\u202e")
    assert not set((Path(page[2]) / "report.md").read_text()) & set("\x00\x1b\x07\x9b\u202e")


def test_the_reports_table_moves_no_cursor(page):
    shown = page[1]
    assert not set(shown) & set("\x00\x1b\x07\x9b\u202e")
    assert "[red]" in shown.replace("\n", "") or "[red" in shown


def test_markup_in_a_cell_is_text(finished):
    place, _ = finished
    rows = json.loads((place.run_dir / "results.json").read_text())["rows"]
    rows = [row | {"task": "[link=http://x]a[/link][bold]"} for row in rows]
    file = io.StringIO()
    Console(file=file, width=200, force_terminal=True).print(terminal_table(rows, {}))
    assert "[link=http://x]a[/link][bold]" in file.getvalue()
    assert "\x1b]8;" not in file.getvalue()


def test_log_lines_cannot_steer_the_terminal_or_pass_for_others(tmp_path, capsys):
    start_log(tmp_path, 0)
    say(f"eval {NASTY}\n2026-01-01 00:00:00,000 rank 0 error: forged\r\b")
    stop_log()
    for text in (capsys.readouterr().out, (tmp_path / "run.log").read_text()):
        assert not set(text) & set("\x00\x1b\x07\x9b\u202e\r\b") and "\\x1b[2J" in text
        assert "\n  2026-01-01" in text and "\n2026" not in text


def test_errors_are_one_harmless_line():
    assert one_line(ValueError("a\nb\r\x1b[1mc\u2028d")) == "a b \\x1b[1mc d"
    assert clean("tab\tand\nline stay, \u00e9 \u4e2d \U0001f600 too") == (
        "tab\tand\nline stay, \u00e9 \u4e2d \U0001f600 too"
    )


def test_a_bad_row_cannot_steer_the_terminal(overrides, workspace, capsys):
    from rmas_train.__main__ import main

    for row in ({"question": {"\x1b[2J": "\x9b"}}, {"question": "q", "answer": "\x1b\x07"}):
        (workspace / "data" / "test.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n")
        assert main(overrides) == 2
        stop_log()
        error = capsys.readouterr().err
        assert not set(error) & set("\x1b\x9b\x07") and len(error.splitlines()) == 1


def test_a_warning_is_one_harmless_line():
    from rmas_train.__main__ import warning_line

    line = warning_line("a \x1b[2J\nb", UserWarning, "file.py", 3)
    assert line == "file.py:3: UserWarning: a \\x1b[2J b\n"


def test_names_in_pictures_are_no_formulas():
    assert plain("a $x$ \x1b") == "a \\$x\\$ \\x1b"
