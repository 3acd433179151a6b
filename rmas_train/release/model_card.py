"""``README.md`` of pushed links: the agents, how the links were made, and results."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import ModelCardData

from rmas_train.compose import saved_values
from rmas_train.errors import DataError
from rmas_train.links.card import CARD, LinksCard
from rmas_train.reporting.collect import read_json
from rmas_train.reporting.tables import HEADER, table_rows
from rmas_train.support.output import clean
from rmas_train.support.reading import parse_json

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PAPER = "2604.25917"
CITATION = f"""\
The method is RecursiveMAS, [arXiv {PAPER}](https://arxiv.org/abs/{PAPER}):

```bibtex
@misc{{recursivemas, eprint = {{{PAPER}}}, archivePrefix = {{arXiv}}}}
```
"""


def model_card(folder: Path, card: LinksCard, run_dir: Path | None) -> str:
    """The text of ``README.md``.

    Args:
        folder: links folder.
        card: its ``links.json``.
        run_dir: run folder that contains it, for command, data and results; None: there is none.
    """
    header = ModelCardData(
        library_name="rmas_train",
        base_model=base_models(card) or None,
        tags=["recursive-multi-agent-system", "rmas_train", f"arxiv:{PAPER}"],
        ignore_metadata_errors=False,
    )
    parts = [f"---\n{header.to_yaml()}\n---\n", _what(card), _agents(card), _made(card, run_dir)]
    parts += [_results(folder, run_dir), "## Use\n\n" + _use(card), f"## Citation\n\n{CITATION}"]
    return "\n".join(part.rstrip() + "\n" for part in parts if part)


def base_models(card: LinksCard) -> list[str]:
    """The agents that are hub ids; other people cannot use a local folder."""
    models = [about["model"] for about in card.agents.values()]
    return sorted({m for m in models if HUB_ID.fullmatch(m) and not Path(m).exists()})


def local_agents(card: LinksCard) -> list[str]:
    """Agents in local folders; a user who pulls the links must name them with ``agents=``."""
    known = set(base_models(card))
    return [name for name, about in card.agents.items() if about["model"] not in known]


def _what(card: LinksCard) -> str:
    edges = ", ".join(
        f"`{_text(e['source'])}-{_text(e['target'])}`" for e in card.topology["edges"]
    )
    kind = "Inner links" if card.stage == "inner" else "Inner and outer links"
    return (
        f"# {kind} of a recursive multi-agent system\n\n"
        f"Small trained maps that let frozen language models think together in latent space. "
        f"Topology `{_text(card.topology['name'])}`: {edges}; "
        f"`{_text(card.topology['decoder'])}` answers. The models themselves are not here.\n"
    )


def _agents(card: LinksCard) -> str:
    lines = ["## Agents\n", "| agent | model | revision | width | dtype | sha256 of its weights |"]
    lines.append("|---|---|---|---|---|---|")
    for name, about in card.agents.items():
        model = about["model"] if name not in local_agents(card) else Path(about["model"]).name
        cells = [name, model, about["revision"] or "-", str(about["width"]), about["dtype"]]
        cells.append(about["fingerprint"][:16] or "unknown")
        lines.append(f"| {' | '.join(_text(c) for c in cells)} |")
    return "\n".join(lines)


def _made(card: LinksCard, run_dir: Path | None) -> str:
    """Options, data, command and versions, as far as the run's files have them."""
    options = {k: card.links[k] for k in ("variant", "norm", "edge_input", "init")}
    lines = ["## Training\n", f"- links: {', '.join(f'{k} {v}' for k, v in options.items())}"]
    lines.append(f"- rounds {card.rounds}, latent_length {card.latent_length}")
    if card.released:
        files = card.released.get("files", {}).values()
        sources = sorted({str(f["file"]).rpartition("/")[0] for f in files})
        lines.append(f"- imported, not trained here: {_text(', '.join(sources))}")
    about = _environment(run_dir)
    data = card.data_fingerprint[:16] or "unknown"
    lines.append(f"- data: {_text(about.get('data', '-'))} (sha256 {data})")
    lines.append(
        f"- made with: rmas_train {_text(card.package_version)}{about.get('versions', '')}"
    )
    if "command" in about:
        lines.append(f"- command: `{_text(about['command'])}`")
    return "\n".join(lines)


def _environment(run_dir: Path | None) -> dict[str, str]:
    """Facts from ``environment.json`` and ``config.yaml`` of the stage, if they are there."""
    found: dict[str, str] = {}
    if run_dir is None:
        return found
    for stage in ("outer", "inner"):
        path = run_dir / stage / "environment.json"
        if path.is_file() and not found:
            try:
                values = parse_json(path.read_text(encoding="utf-8"))
                found["command"] = " ".join(_shown(w) for w in str(values["command"]).split())
                kept = ("torch", "transformers")
                known = {k: values["versions"][k] for k in kept}
                found["versions"] = "".join(f", {k} {_text(str(v))}" for k, v in known.items())
                found["data"] = str(saved_values(path.with_name("config.yaml"))["data"]["name"])
            except (KeyError, TypeError, ValueError, OSError) as error:
                raise DataError(f"{path}: cannot be read ({error}); copy the run again.") from error
    return found


def _shown(word: str) -> str:
    """A word of the command line without folders of this machine."""
    key, is_option, value = word.rpartition("=")
    return f"{key}{is_option}{Path(value).name}" if value.startswith(("/", "~")) else word


def _results(folder: Path, run_dir: Path | None) -> str:
    """The table of the last evaluation, unless the links are newer than it."""
    path = run_dir / "eval" / "results.json" if run_dir is not None else None
    if path is None or not path.is_file():
        return "## Results\n\nNot measured."
    if path.stat().st_mtime < (folder / CARD).stat().st_mtime:
        return "## Results\n\nNot measured since the links were made."
    found = read_json(path)
    extra = {"run": ".", "trained_rounds": found["trained_rounds"]}
    rows = table_rows([row | extra for row in found["rows"]], found.get("systems", {}))
    lines = ["## Results\n", f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    lines += [f"| {' | '.join(_text(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _use(card: LinksCard) -> str:
    local = local_agents(card)
    given = ", ".join(f'"{name}": "<folder or hub id>"' for name in local)
    options = f", agents={{{given}}}" if local else ""
    return (
        "```\npython -m rmas_train links pull <this repository> links\n```\n\n"
        f'```python\nimport rmas_train\n\nsystem = rmas_train.load("links"{options})\n'
        'print(system.answer(["..."])[0].text)\n```\n'
    )


def _text(value: str) -> str:
    """Text for a cell or a line: no secret, no control character, no active markup."""
    return re.sub(r"([|`<>\[\]\\])", r"\\\1", clean(" ".join(str(value).split())))
