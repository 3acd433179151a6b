"""Answers in the report: which questions, what is shown of them, and nothing that is a script."""

import json

from rmas_train.reporting.answers import EACH, LONGEST, answers_section, read_answers


def record(index, right, system="latent", control=None, rounds=2, **more):
    about = {"task": "t", "system": system, "control": control, "rounds": rounds, "index": index}
    grade = {"text": f"text {system} {rounds}", "right": right, "readable": True, "answer": "gold"}
    return about | grade | more


def write(run, records, more=""):
    (run / "eval").mkdir(parents=True)
    lines = "".join(json.dumps(one) + "\n" for one in records)
    (run / "eval" / "answers.jsonl").write_text(lines + more)
    return run


def test_right_and_wrong_questions_with_all_systems_at_the_largest_depth(tmp_path):
    latent = [record(i, i % 3 == 0, rounds=r) for r in (1, 2) for i in range(30)]
    text = [record(i, True, "text", question=f"why {i}?") for i in range(30)]
    again = [record(0, False, sample=1)]
    run = write(tmp_path / "run", [*latent, *text, *again], '{"task": 3}\nno record\n')
    found = read_answers(run)
    assert len(found) == 2 * EACH
    first = [r["right"] for (_, _), (r, *_) in found.items()]
    assert first.count(True) == EACH
    for (_, index), records in found.items():
        assert [(r["system"], r["rounds"]) for r in records] == [("latent", 2), ("text", 2)]
        assert {r["index"] for r in records} == {index}
    page = answers_section({".": found})
    assert page.count("<details>") == 2 * EACH and "text latent 2" in page and "gold" in page


def test_everything_is_escaped_and_long_texts_are_cut(tmp_path):
    odd = "<script>alert(1)</script>\x1b[31m"
    records = [record(0, False, text=odd + "x" * 5000, question=odd, answer=odd, readable=False)]
    page = answers_section({"a": read_answers(write(tmp_path / "run", records)), "b": {}})
    assert "<script" not in page and "\x1b" not in page and "unreadable" in page
    assert len(page) < 10 * LONGEST


def test_a_run_without_answers_has_no_section(tmp_path):
    assert read_answers(tmp_path) == {} and answers_section({".": {}}) == ""
