"""Verdicts are computed: planted systems get the one that they deserve."""

import numpy as np
import pytest

from rmas_train.evaluation.verdict import comparisons, verdicts


def planted(seed, n=300, **accuracy):
    """Records of systems with these accuracies; names as in results, with _ for a space."""
    rng, found = np.random.default_rng(seed), []
    for name, share in accuracy.items():
        system, _, control = name.partition("_") if name.startswith("latent") else (name, "", "")
        for i, right in enumerate(rng.random(n) < share):
            about = {"task": "t", "rounds": 1, "latent_length": 1, "index": i}
            found.append(
                about | {"system": system, "control": control or None, "right": bool(right)}
            )
    return found


def judged(records, source=lambda record: record["index"]):
    compared = comparisons(records, source)
    return compared, verdicts(compared)


def test_a_channel_with_content_gets_its_gain():
    _, (verdict,) = judged(planted(0, latent=0.9, latent_null=0.2, latent_shuffled=0.4, text=0.95))
    assert verdict["content"] and verdict["over"] == "latent shuffled"
    low, high = verdict["ci95"]
    assert low < 0.5 < high and verdict["p"] < 1e-6
    assert verdict["line"].startswith("the channel brings +")
    assert "over the best control (latent shuffled), p < 0.001" in verdict["line"]


def test_a_channel_that_gives_the_format_alone_brings_no_content():
    """It beats null clearly, and shuffled messages do as well as its own."""
    _, (verdict,) = judged(planted(1, latent=0.5, latent_null=0.0, latent_shuffled=0.5))
    assert not verdict["content"] and verdict["over"] == "latent shuffled"
    assert verdict["line"].startswith("no content shown: ")
    assert "300 questions show" in verdict["line"]


def test_one_control_that_is_as_good_is_enough():
    accuracy = {"latent": 0.7, "latent_null": 0.1, "latent_shuffled": 0.1, "decoder_alone": 0.7}
    assert not judged(planted(7, **accuracy))[1][0]["content"]


@pytest.mark.slow
def test_no_content_is_found_in_five_percent_of_empty_channels():
    found = [
        judged(planted(seed, n=80, latent=0.4, latent_null=0.4, latent_shuffled=0.4))[1][0]
        for seed in range(20)
    ]
    assert sum(one["content"] for one in found) <= 2


def test_every_system_is_compared_on_the_same_questions():
    compared, _ = judged(planted(3, latent=0.6, latent_null=0.5, text=0.6, single=0.7))
    assert [(one["a"], one["b"]) for one in compared] == [
        ("latent", "latent null"),
        ("latent", "text"),
        ("latent", "single"),
    ]
    assert all(one["n"] == one["sources"] == 300 for one in compared)
    assert all(one["p"] <= one["p_holm"] <= 1 for one in compared)


def test_questions_of_one_passage_are_counted_as_related():
    records = planted(4, latent=0.6, latent_null=0.5)
    (alone,), _ = judged(records)
    (shared,), _ = judged(records, lambda record: record["index"] // 10)
    assert shared["sources"] == 30 and alone["sources"] == 300
    assert shared["difference"] == pytest.approx(alone["difference"])


def test_without_a_control_there_is_no_verdict():
    assert judged(planted(5, latent=0.6, text=0.5))[1] == []
    assert judged(planted(6, text=0.5))[0] == []
