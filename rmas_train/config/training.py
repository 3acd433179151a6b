"""Options of the two training stages, and of baselines that train an agent."""

from __future__ import annotations

from dataclasses import dataclass, field

from rmas_train.config.system import MOST_ROWS, MOST_STEPS, check_choice, check_least, option
from rmas_train.errors import ConfigError
from rmas_train.registry import CALLBACKS, INNER_OBJECTIVES, OBJECTIVES

GRADIENTS = ("full", "window", "first_step", "parallel")


@dataclass(kw_only=True)
class TrainingConfig:
    """What both stages share."""

    objective: str = option("", "what is minimised; a plugin adds its own")
    callbacks: list[str] = option([], "a plugin's callbacks, told of every optimizer step")
    steps: int = option(1000, "optimizer steps")
    batch_size: int = option(64, "rows per optimizer step, over all ranks and micro-batches")
    micro_batch_size: int | None = option(None, "rows per forward and rank; null: all of a rank's")
    lr: float = option(5e-4, "peak learning rate (release and paper: 5e-4)")
    warmup_steps: int = option(10, "linear warm-up, then cosine to 0 (release: 10)")
    weight_decay: float = option(0.0, "AdamW weight decay (release: 0)")
    betas: list[float] = option([0.9, 0.95], "AdamW betas (release: 0.9, 0.95)")
    eps: float = option(
        1e-8,
        "AdamW epsilon; a larger value (1e-4) keeps tiny, noisy gradients from moving the links",
    )
    clip_norm: float = option(
        1.0, "largest gradient norm; 0 turns clipping off (release: 1, over all parameters)"
    )
    clip_scope: str = option("link", "link: each link by itself | global: all as one vector")
    log_every: int = option(10, "steps between lines of metrics.jsonl")
    save_every: int = option(200, "steps between checkpoints; also after the last step")
    save_minutes: float = option(10.0, "minutes after which a checkpoint is due earlier")
    keep: int = option(2, "newest checkpoints that stay")

    def __post_init__(self) -> None:
        for key in ("micro_batch_size", "log_every", "save_every", "keep"):
            check_least(f"training.<stage>.{key}", getattr(self, key), 1)
        check_least("training.<stage>.steps", self.steps, 1, MOST_STEPS)
        check_least("training.<stage>.batch_size", self.batch_size, 1, MOST_ROWS)
        for key in ("lr", "warmup_steps", "weight_decay", "eps", "clip_norm", "save_minutes"):
            check_least(f"training.<stage>.{key}", getattr(self, key), 0)
        for name in self.callbacks:
            CALLBACKS.check(name)
        check_choice("training.<stage>.clip_scope", self.clip_scope, ("link", "global"))
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise ConfigError(f"training.<stage>.betas={self.betas}; give two numbers in [0, 1).")


@dataclass(kw_only=True)
class InnerConfig(TrainingConfig):
    objective: str = option("cosine", "cosine to the next token's embedding; or a plugin's")
    inner_states: str = option(
        "teacher_forced", "teacher_forced (release) | rollout (the paper's formula, literally)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        INNER_OBJECTIVES.check(self.objective)
        known = ("teacher_forced", "rollout")
        check_choice("training.inner.inner_states", self.inner_states, known)


@dataclass(kw_only=True)
class OuterConfig(TrainingConfig):
    objective: str = option("answer", "cross-entropy on the final answer; or a plugin's")
    lr: float = option(
        1e-4, "peak learning rate from an aligned start; the release's 5e-4 spoils it, docs/log.md"
    )
    depth: str = option(
        "uniform", "rounds per step: uniform in 1..rounds | growing (1..d, d grows) | fixed"
    )
    train_inner: bool = option(False, "train the inner links too")
    earlier_rounds: float = option(
        0.0,
        "weight of the answer's mean loss in the rounds before the last, on rows within their "
        "reach (release, where it is on: 0.1)",
    )
    self_distill: float = option(
        0.0,
        "weight of the divergence from the system's own answer at `rounds` rounds, in steps with "
        "fewer rounds",
    )
    text_messages: float = option(
        0.0,
        "weight of the messages' cosine loss to what text recursion sends on the same rows, in the "
        "target's embeddings (stage=plan does not count what they write)",
    )
    message_noise: float = option(
        0.0, "Gaussian noise on each message in training, over the rms of its entries"
    )
    from_links: str | None = option(
        None, "links folder or run folder: the outer links begin with its, in place of links.init"
    )
    answers_of: str | None = option(
        None,
        "folder of an evaluation of the training rows (data.test=train.jsonl): the loss is on its "
        "text recursion's answers, and rows without one are left out",
    )
    messages: str = option(
        "own",
        "own | shuffled: each row gets those of the next row in its micro-batch; such links learn "
        "the answer's format and no content (evaluation.format)",
    )
    loss_mean: str = option(
        "token",
        "over a step's answers: token: over all tokens | row: over rows, of each row's mean "
        "(release)",
    )
    end_token: bool = option(
        True,
        "the loss counts what ends the answer too; false: only its text, where a decoder that "
        "writes on does no harm",
    )
    recompute: str = option(
        "none",
        "none | agent: run each call again in backward, so memory hardly grows with rounds | auto",
    )
    latents: str = option(
        "rollout", "rollout | teacher_forced: send states of data.role_texts instead (release)"
    )
    feedback: str = option(
        "rollout",
        "decoder if teacher_forced: rollout | gold_answer (release; a leak)",
    )
    gradient: str = option(
        "full",
        "through a rollout: full | window | first_step | parallel; docs/gradients.md",
    )
    gradient_steps: int | None = option(
        None, "latent steps per window, or sweeps of parallel; parallel is exact at latent_length"
    )
    gradient_rounds: int | None = option(
        None, "gradient goes back through this many of the last rounds only; null: all"
    )
    prefix_cache_gib: float = option(
        0.0, "GiB of frozen prefixes kept over steps and epochs, per process; 0: none"
    )
    validate_every: int = option(
        0,
        "steps between validations on data.valid, before the first and after the last; 0: none",
    )
    validate_rows: int = option(100, "rows of data.valid that are used")
    select: str = option(
        "last", "links that the stage ends with: last | best (validation accuracy, then loss)"
    )
    profile_every: int = option(
        50, "steps between lines of profile.jsonl, the gradients by edge and round; 0: none"
    )
    clip_message: float = option(
        0.0, "largest gradient norm of a row's loss at each of its messages; 0: no limit"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        OBJECTIVES.check(self.objective)
        check_choice("training.outer.recompute", self.recompute, ("none", "agent", "auto"))
        check_choice("training.outer.latents", self.latents, ("rollout", "teacher_forced"))
        check_choice("training.outer.feedback", self.feedback, ("rollout", "gold_answer"))
        check_choice("training.outer.messages", self.messages, ("own", "shuffled"))
        check_choice("training.outer.loss_mean", self.loss_mean, ("token", "row"))
        if self.messages == "shuffled" and 1 in (self.batch_size, self.micro_batch_size):
            raise ConfigError(
                f"training.outer.messages=shuffled with batch_size={self.batch_size} and "
                f"micro_batch_size={self.micro_batch_size}: a row has nobody to get messages from; "
                "set both to 2 or more."
            )
        if self.latents == "rollout" and self.feedback != "rollout":
            raise ConfigError(
                f"training.outer.feedback={self.feedback} belongs to "
                "training.outer.latents=teacher_forced; set both, or neither."
            )
        check_least("training.outer.validate_every", self.validate_every, 0)
        check_least("training.outer.validate_rows", self.validate_rows, 1, MOST_ROWS)
        check_choice("training.outer.select", self.select, ("last", "best"))
        if self.select == "best" and not self.validate_every:
            raise ConfigError(
                "training.outer.select=best needs validations; set training.outer.validate_every, "
                "as in training.outer.validate_every=50."
            )
        check_choice("training.outer.gradient", self.gradient, GRADIENTS)
        if self.latents == "teacher_forced" and self.gradient != "full":
            raise ConfigError(
                f"training.outer.gradient={self.gradient} is a gradient through rollouts, but "
                "training.outer.latents=teacher_forced has no rollout; use gradient=full."
            )
        for key in ("gradient_steps", "gradient_rounds"):
            check_least(f"training.outer.{key}", getattr(self, key), 1)
        needs_steps = self.gradient in ("window", "parallel")
        if needs_steps != (self.gradient_steps is not None):
            raise ConfigError(
                f"training.outer.gradient={self.gradient} with gradient_steps="
                f"{self.gradient_steps}; window and parallel need gradient_steps, the others "
                "take none."
            )
        for key in ("prefix_cache_gib", "earlier_rounds", "self_distill", "text_messages"):
            check_least(f"training.outer.{key}", getattr(self, key), 0)
        check_least("training.outer.message_noise", self.message_noise, 0)
        check_least("training.outer.profile_every", self.profile_every, 0)
        check_least("training.outer.clip_message", self.clip_message, 0)
        check_choice("training.outer.depth", self.depth, ("uniform", "growing", "fixed"))


@dataclass(kw_only=True)
class FinetuneConfig:
    """Of a single agent that learns from the same rows as the outer links, in the same order."""

    agent: str | None = option(None, "stage=lora, sft: which agent; null: the decoder")
    steps: int | None = option(None, "optimizer steps; null: training.outer.steps")
    batch_size: int | None = option(None, "rows per step; null: training.outer.batch_size")
    micro_batch_size: int | None = option(
        None, "rows per forward, a divisor of the batch; null: all"
    )
    lr: float | None = option(None, "peak learning rate; null: 2e-4 with LoRA, 2e-5 without")
    warmup_steps: int = option(10, "linear warm-up, then cosine to 0")
    rank: int = option(16, "of LoRA's matrices, on all linear layers but the last")
    alpha: int = option(32, "LoRA's scale is alpha / rank")
    save_every: int = option(200, "steps between checkpoints")

    def __post_init__(self) -> None:
        check_least("finetune.steps", self.steps, 1, MOST_STEPS)
        check_least("finetune.batch_size", self.batch_size, 1, MOST_ROWS)
        for key in ("micro_batch_size", "rank", "alpha", "save_every"):
            check_least(f"finetune.{key}", getattr(self, key), 1)
        for key in ("lr", "warmup_steps"):
            check_least(f"finetune.{key}", getattr(self, key), 0)


@dataclass(kw_only=True)
class StagesConfig:
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
