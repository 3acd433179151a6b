"""The runs and analyses that docs/experiments.md quotes; ``scripts/paper.py`` makes them."""

from __future__ import annotations

from dataclasses import dataclass, field

# Rows are so many that `make paper` takes less than 90 minutes on two cores.
FEW = ["evaluation.max_rows=200"]
BESIDE = 'evaluation.systems=[start,"null",shuffled]'
CONTROLS = 'start,"null",shuffled,text,text_capped,decoder_alone,thinking'


@dataclass(frozen=True)
class Part:
    """A run with its analyses.

    Attributes:
        question: letter of the question in docs/experiments.md.
        options: of the training.
        analyses: names, with options of their own.
        needs_models: the three small published models.
        sweep: file of conf/sweep; the part is a sweep, a run per job.
        after: part that comes before, whose inner links are found: they are the same.
        format_of: part that is made for another one's control ``format``.
    """

    question: str
    options: list[str]
    analyses: list[tuple[str, list[str]]] = field(default_factory=list)
    needs_models: bool = False
    sweep: str = ""
    after: str = ""
    format_of: str = ""


PROFILE, HALF = "training.outer.profile_every=10", "evaluation.max_rows=500"
RELAY = ["experiment=relay", PROFILE, HALF, "training.outer.steps=100"]
# The outer links start at noise, so training has something to repair, and settings can differ.
NOISY = ["experiment=relay_scrambled", PROFILE, HALF, "training.outer.steps=150"]
FRESH = [*NOISY, "links.init=default", "links.start_noise=0"]
HEALTH = [("health", FEW)]
# One model in every role, so that its edges are of one width and may share a link.
ONE_MODEL = [
    *(*NOISY, "agents.critic.model=data_recipes/relay/agents/planner"),
    "agents.solver.model=data_recipes/relay/agents/planner",
]
DIALECT = [
    *("experiment=relay_dialect", "rounds=3", "training.outer.depth=uniform"),
    *("training.outer.clip_message=3", "training.outer.batch_size=96", "training.outer.eps=1e-4"),
    *("training.outer.lr=6e-4", PROFILE, HALF),
]
NOTES = [
    *("experiment=notes", "data.more_tests={}", PROFILE),
    *("training.outer.steps=60", "evaluation.max_rows=100"),
]
SHUFFLED = ["training.outer.messages=shuffled", "evaluation.systems=[]"]
LAST = ["training.outer.validate_every=0", "training.outer.select=last"]
ALL = "health,attribution,text_attribution,depth,lens,probes,confidence,messages"

# In the order of a run: two relay parts at a time, long ones first, then the published models, one
# at a time.
PARTS = {
    "levers": Part("levers", [*NOISY, "evaluation.systems=[]"], sweep="levers"),
    "relay_format": Part("f", [*RELAY, *SHUFFLED], format_of="relay"),
    "relay": Part(
        "a",
        [
            *(*RELAY, f"evaluation.systems=[{CONTROLS},format,stop_agreement,stop_entropy]"),
            "evaluation.rounds=[1,2,3,4,5]",  # two more than training had
        ],
        [(ALL, FEW)],
        after="relay_format",
    ),
    "dialect": Part("levers", [*DIALECT, BESIDE]),
    "dialect_text": Part(
        "levers", [*DIALECT, BESIDE, "training.outer.text_messages=1"], after="dialect"
    ),
    "noisy_start": Part("c", [*NOISY, BESIDE], HEALTH),
    "no_noise": Part("c", [*NOISY, BESIDE, "links.start_noise=0"], HEALTH, after="relay_format"),
    "default_start": Part("c", [*FRESH, BESIDE], HEALTH),
    "default_start_text": Part("c", [*FRESH, BESIDE, "training.outer.text_messages=1"]),
    "layernorm": Part("c", [*FRESH, BESIDE, "links.norm=layernorm"], HEALTH),
    "vocabulary": Part("c", [*NOISY, BESIDE, "links=vocabulary", "links.start_noise=0"], HEALTH),
    "bfloat16_links": Part(
        "c",
        [
            *(*NOISY, BESIDE, "plugins=[scripts.bfloat16_links]"),
            "training.outer.callbacks=[bfloat16_links]",
        ],
        after="relay_format",
    ),
    "released_settings": Part(
        "b",
        [
            *(*FRESH, BESIDE, "links.norm=layernorm", "training.outer.lr=5e-4"),
            *("training.outer.depth=fixed", "training.outer.clip_scope=global"),
            *("training.outer.clip_message=0", "training.outer.eps=1e-8"),
        ],
        HEALTH,
        after="layernorm",
    ),
    "teacher_forced": Part(
        "d", [*NOISY, BESIDE, "training.outer.latents=teacher_forced"], after="relay_format"
    ),
    "gold_feedback": Part(
        "d",
        [
            *(*NOISY, BESIDE, "training.outer.latents=teacher_forced"),
            "training.outer.feedback=gold_answer",
        ],
        after="relay_format",
    ),
    "one_model": Part("levers", [*ONE_MODEL, BESIDE]),
    "one_model_shared": Part("levers", [*ONE_MODEL, BESIDE, "links.shared=true"]),
    "mixture": Part(
        "f",
        ["experiment=relay_mixture", BESIDE, PROFILE, HALF],
        [("attribution", ["rounds=1", "data.test=two_steps.jsonl"])],
    ),
    "notes_format": Part("f", [*NOTES, *LAST, *SHUFFLED], needs_models=True, format_of="notes"),
    "notes": Part(
        "g",
        [*NOTES, f"evaluation.systems=[{CONTROLS},format]"],
        [("health,attribution,lens,confidence", ["evaluation.max_rows=50"])],
        needs_models=True,
    ),
    "notes_hops": Part(
        "a",
        [
            *("experiment=notes_hops", "evaluation.max_rows=60", "training.outer.steps=10"),
            *(*LAST, "training.outer.profile_every=5", 'evaluation.systems=["null"]'),
        ],
        [
            ("health,depth,lens", ["evaluation.max_rows=30"]),
            ("attribution", ["evaluation.max_rows=10", "analysis.alternatives=2"]),
        ],
        needs_models=True,
    ),
}
