"""Texts from models, data and files reach a page or a terminal as text, never as commands."""

import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

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
    *("html", "meta", "title", "style", "h1", "h2", "p", "img", "br", "i", "table", "tr", "th"),
    *("td", "ul", "li", "b", "code", "details", "summary", "pre"),
}
ATTRIBUTES = {("html", "lang"), ("meta", "charset"), ("meta", "http-equiv"), ("meta", "content")}
ATTRIBUTES |= {("img", "src"), ("img", "alt")}


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
def page(finished, tmp_path, capsys) -> tuple[str, str]:
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
    return (tmp_path / "report" / "index.html").read_text(), capsys.readouterr().out


def test_the_page_holds_only_its_own_tags(page):
    parsed = Page(page[0])
    assert parsed.tags == TAGS and parsed.comments == 0
    assert set(parsed.attributes) == ATTRIBUTES
    assert parsed.attributes["img", "src"] == {"accuracy.png", "cost.png", "training.png"}
    assert "alert(1)" in parsed.text, "the texts are there, as texts"
    policy = "script-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'"
    assert policy in parsed.attributes["meta", "content"]
    assert page[0].isprintable() or not set(page[0]) & set("\x00\x1b\x07\x9b\u202e")


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
