"""Systems, benchmarks and graders: what an evaluation asks, and how a report shows it."""

import pytest
from tiny import make_links, make_rows

from rmas_train.config import Config, DataConfig, EvaluationConfig
from rmas_train.errors import ConfigError
from rmas_train.evaluation.benchmark import RowsBenchmark
from rmas_train.evaluation.evaluate import Judge, Trial, run_trial
from rmas_train.evaluation.graders import PatternGrader
from rmas_train.evaluation.parts import parts_of
from rmas_train.evaluation.score import by_system, result_row
from rmas_train.registry import SYSTEMS, Registry
from rmas_train.reporting.collect import check_looks
from rmas_train.reporting.tables import table_rows
from rmas_train.systems import alone
from rmas_train.systems.alone import Alone
from rmas_train.systems.base import Answer, Ingredients
from rmas_train.systems.latent import TRAINED
from rmas_train.systems.looks import Look, looks_of


def config(**evaluation):
    options = {"max_new_tokens": 3, "batch_size": 4} | evaluation
    data = DataConfig(name="tiny", answer_pattern=r"(?P<answer>\w+)")
    return Config(rounds=3, data=data, evaluation=EvaluationConfig(**options))


def judge_of(team, config):
    links = make_links(team).requires_grad_(False)
    return Judge(config, team, {"trained": links, "untrained": links})


def records_of(team, config, rows=None):
    """Records by system, and the rows that they are of."""
    benchmark = RowsBenchmark("tiny", rows or make_rows(6), PatternGrader(config))
    judge = judge_of(team, config)
    found = [
        r for part in parts_of(config, [benchmark]) for some in judge.answer(part) for r in some
    ]
    return by_system(found), benchmark.rows


def test_an_evaluation_is_systems_times_benchmarks_with_a_record_for_each_question(team):
    found, rows = records_of(team, config())
    names = {(system, control) for _, system, control, *_ in found}
    assert ("latent", "start") not in names, "there are no start links here"
    assert len(found) == 3 * len(names) == 3 * 6
    for who, records in found.items():
        row = result_row(who, records, rows)
        assert len(records) == row["n"] == 6
        assert [record["index"] for record in records] == list(range(6))
        assert sum(record["right"] for record in records) / 6 == row["accuracy"]
        assert {record["rounds"] for record in records} == {row["rounds"]}


def test_the_decoder_alone_answers_once_for_all_depths(team, monkeypatch):
    asked = []
    plain = Alone.answer
    monkeypatch.setattr(Alone, "answer", lambda self, *a: asked.append(1) or plain(self, *a))
    found, benchmark = records_of(team, config(systems=["decoder_alone"]))
    rows = [result_row(w, r, benchmark) for w, r in found.items() if w[1] == "decoder_alone"]
    assert [row["rounds"] for row in rows] == [1, 2, 3] and len(asked) == 1
    assert len({row["accuracy"] for row in rows}) == 1
    assert rows[0]["n_within_reach"] == 3 and rows[2]["n_within_reach"] == 6


@pytest.mark.parametrize("decoding", ["plain", "static"])
def test_the_decoder_alone_decodes_as_asked(team, monkeypatch, decoding):
    ways = []
    write = alone.write
    monkeypatch.setattr(
        alone,
        "write",
        lambda a, e, n, how, i: ways.append(how.decoding.method) or write(a, e, n, how, i),
    )
    asked = config(systems=["decoder_alone"], decoding=decoding)
    ingredients = Ingredients(asked, team, {}, make_rows(2))
    alone.DECODER_ALONE.build(ingredients).answer(make_rows(2))
    assert set(ways) == {decoding}


def test_no_table_is_cut_in_place(team):
    rows = make_rows(6)
    records_of(team, config(max_rows=2, systems=[]), rows)
    assert len(rows) == 6


class Silent:
    """Says nothing at all."""

    latent_length, uses_rounds = 0, True

    def answer(self, rows, rounds):
        return [Answer("", 1, 0) for _ in rows]


def test_what_cannot_be_read_is_wrong_and_counted(team):
    part = parts_of(config(), [RowsBenchmark("tiny", make_rows(6), PatternGrader(config()))])[0]
    records = run_trial(Trial(part, TRAINED, Silent(), (1,)), range(6))
    (who, own), *_ = by_system(records).items()
    row = result_row(who, own, part.rows)
    assert row["unreadable"] == 6 and row["accuracy"] == 0
    assert all(r["read"] is None and not r["right"] for r in records)


def result(system, control, **values):
    numbers = {"accuracy": 0.5, "ci95": [0.1, 0.9], "tokens": 1.0, "latent_steps": 0.0}
    reach = {"accuracy_within_reach": None, "accuracy_beyond_reach": None, "seconds": 0.1}
    place = {"task": "t", "run": ".", "rounds": 1, "latent_length": 0, "trained_rounds": 1}
    return numbers | reach | place | {"system": system, "control": control} | values


def test_a_report_shows_systems_that_it_has_never_heard_of():
    rows = [result("psychic", None), result("latent", None), result("latent", "noisy")]
    said = {"latent noisy": {"label": "noise", "colour": "#F0E442", "marker": "P", "order": 10}}
    looks = looks_of(rows, said)
    assert list(looks) == ["latent", "latent noisy", "psychic"]
    assert looks["latent noisy"].label == "noise" and looks["psychic"] == Look("psychic")
    assert [cells[1] for cells in table_rows(rows, said)] == list(looks)


@pytest.mark.parametrize(
    ("look", "key"),
    [
        ({"colour": "red"}, "colour is 'red'"),
        ({"colour": "#12345"}, "colour"),
        ({"marker": "$x$"}, "marker"),
        ({"order": "1"}, "order"),
        ({"label": None}, "label"),
    ],
)
def test_a_look_from_a_file_is_checked(look, key):
    whole = {"label": "a", "colour": "#000000", "marker": "o", "order": 1} | look
    with pytest.raises(ValueError, match=key):
        check_looks({"mine": whole})


def test_registries_name_what_they_have():
    with pytest.raises(ConfigError, match=r"evaluation.systems=shuffle.*Did you mean 'shuffled'"):
        EvaluationConfig(systems=["shuffle"])
    with pytest.raises(ConfigError, match="benchmarks=\\[\\]"):
        EvaluationConfig(benchmarks=[])
    own: Registry[int] = Registry("number", "some.option", {"one": "builtins:int"})
    own.register("two", 2)
    assert own.names() == ["one", "two"] and own.get("two") == 2 and own.get("one") is int
    for taken in ("one", "two"):
        with pytest.raises(ConfigError, match=f"number '{taken}' is .* already"):
            own.register(taken, 3)
    assert {"latent", "text", "decoder_alone", "shuffled"} <= set(SYSTEMS.names())


def test_several_samples_are_records_of_their_own_and_one_row(team):
    asked = config(samples=3, temperature=2.0, systems=["shuffled", "text"])
    found, rows = records_of(team, asked)
    for who, own in found.items():
        assert len(own) == 18 and len({(r["index"], r["sample"]) for r in own}) == 18
        row = result_row(who, own, rows)
        assert (row["n"], row["samples"], list(row["pass_at"])) == (6, 3, ["1", "2", "3"])
        assert row["accuracy"] == pytest.approx(row["pass_at"]["1"])
        assert row["n_majority"] == 6
        assert any(len({r["text"] for r in own if r["index"] == i}) > 1 for i in range(6))


@pytest.mark.parametrize(
    ("options", "needles"),
    [
        ({"samples": 2}, ["samples=2", "temperature=0"]),
        ({"temperature": 1.0, "decoding": "static"}, ["temperature=1.0", "static", "plain"]),
        ({"top_p": 0.0}, ["top_p=0"]),
        ({"top_p": 1.5}, ["top_p=1.5"]),
        ({"top_k": 0}, ["top_k=0"]),
        ({"temperature": -1.0}, ["temperature=-1"]),
        ({"temperature": float("nan")}, ["temperature=nan"]),
        ({"samples": 0}, ["samples=0"]),
    ],
)
def test_odd_sampling_is_refused(options, needles):
    with pytest.raises(ConfigError) as error:
        config(**options)
    assert all(needle in str(error.value) for needle in needles)
