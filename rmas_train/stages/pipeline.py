"""The stages in order: each reads the config and its predecessor's files, and writes its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rmas_train.compose import import_plugins
from rmas_train.config import Config
from rmas_train.errors import ConfigError, did_you_mean
from rmas_train.evaluation.lenient import lenient_grader
from rmas_train.links.link_set import LinkSet
from rmas_train.objectives.base import Factory
from rmas_train.runs.evaluated import check_controls
from rmas_train.runs.identity import equal_inner, inner_identity
from rmas_train.runs.load import Loaded, load_run
from rmas_train.runs.session import held, is_main_process, session
from rmas_train.runs.tables import Tables, load_tables
from rmas_train.runtime.runtime import Runtime
from rmas_train.stages.train import begin_stage, check_layout, inner_share, run_inner, run_outer
from rmas_train.support.output import say
from rmas_train.tools.calls import Toolbox
from rmas_train.topology import Topology, build_topology
from rmas_train.training.callbacks import Callback, Step


def execute(config: Config) -> None:
    """Run a composed config in this process and, where it measured something, report."""
    import_plugins(config.plugins)  # a sweep's job may be a process of its own
    run_dir = Path(config.run_dir)
    with held(run_dir):
        if config.stage != "report":
            with session(config) as runtime:
                run(config, runtime)
        if is_main_process() and config.stage in ("report", "eval", "pipeline"):
            from rmas_train.reporting.report import write_report

            write_report(run_dir)
            if config.tracking and config.stage != "report":
                from rmas_train.stages.tracked import track_report

                track_report(config)


def run(config: Config, runtime: Runtime) -> None:
    """Run ``config.stage``; ``pipeline`` is inner (unless equal links exist), outer and eval.

    What a stage needs alone is imported when it runs.
    """
    stage = config.stage
    if stage in ("plan", "pin"):
        run_alone(config, runtime)
        return
    tools = check_early(config, runtime)
    tables = load_tables(config, runtime)
    if stage in ("eval", "pipeline"):
        check_golds(config, tables)
        check_controls(config, tables)
        lenient_grader(config)  # where it has none, before anything is trained
    names = inner_share(config, runtime)[0] if stage == "inner" else None
    loaded = load_run(config, runtime, names, tables)
    if stage == "pipeline" and config.resume == "auto":
        from rmas_train.stages.finished import is_finished

        if runtime.broadcast(runtime.is_main and is_finished(config, loaded)):
            say(f"{config.run_dir} is finished; there is nothing to do.")
            return
    if stage == "inner":
        run_inner(config, loaded, runtime)
    if stage == "outer":
        run_outer(config, loaded, runtime)
    if stage == "pipeline":
        train_links(config, loaded, runtime)
    finetune_agents(config, loaded)
    if stage in ("eval", "pipeline"):
        from rmas_train.stages.evaluate import run_eval

        run_eval(config, loaded, runtime, tools)
    if stage == "analyse":
        from rmas_train.stages.analyse import run_analyses

        run_analyses(config, loaded, runtime)


def finetune_agents(config: Config, loaded: Loaded) -> None:
    """Baselines lora and sft: as a stage, or where a pipeline evaluates them."""
    for method in ("lora", "sft"):
        in_pipeline = config.stage == "pipeline" and method in config.evaluation.systems
        if config.stage == method or in_pipeline:
            from rmas_train.stages.finetune import run_finetune

            run_finetune(config, loaded, method)


def run_alone(config: Config, runtime: Runtime) -> None:
    """Stages plan and pin: rank 0 alone, without agents."""
    if not runtime.is_main:
        return
    if config.stage == "plan":
        from rmas_train.planning.run import run_plan

        run_plan(config, runtime.device)
    else:
        from rmas_train.release.pin import run_pin

        run_pin(config)


def train_links(
    config: Config,
    loaded: Loaded,
    runtime: Runtime,
    callbacks: Sequence[Callback | Callable[[Step], None]] = (),
    factory: Factory | None = None,
) -> LinkSet:
    """Inner links, unless given or equal ones exist, and outer links; see ``run_outer``."""
    if config.inner:
        return run_outer(config, loaded, runtime, callbacks, factory)
    inner = Path(config.run_dir) / "inner" / "links"
    twin = runtime.broadcast(equal_inner(config, loaded) if runtime.is_main else None)
    if twin is None:
        run_inner(config, loaded, runtime)
        twin = inner
    else:
        if twin != inner:  # nothing of another run may stay beside what is trained now
            begin_stage(config, "inner", inner_identity(loaded), runtime)
        if runtime.is_main:
            say(f"inner links from the same options exist: {twin}")
    return run_outer(config, loaded, runtime, callbacks, factory, twin)


def check_early(config: Config, runtime: Runtime) -> Toolbox | None:
    """What cannot work is told before anything is loaded or trained; the tools, if any."""
    check_options(config, runtime.is_main)
    if config.stage in ("lora", "sft") or {"lora", "sft"} & set(config.evaluation.systems):
        from rmas_train.stages.finetune import check_finetune

        check_finetune(config, runtime.world)
    if config.stage in ("outer", "pipeline"):
        check_layout(config, runtime.backend, runtime.placement)
    if config.stage not in ("eval", "pipeline"):
        return None

    from rmas_train.tools.toolbox import describe_tools, make_toolbox

    tools = make_toolbox(config.tools, config.allow_code_execution)
    if tools is not None and runtime.is_main:
        say(describe_tools(tools))
    return tools


def check_golds(config: Config, tables: Tables) -> None:
    """The grader can read every gold answer."""
    from rmas_train.evaluation.graders import make_grader

    grader = make_grader(config)
    for table in tables.outer():
        grader.check(table)


def check_options(config: Config, is_main: bool = True) -> None:
    """Options that agree with each other, and with what is installed.

    Raises:
        ConfigError: they do not.
    """
    topology = build_topology(config.topology, config.agents)
    check_names(config)
    check_role_texts(config, topology)
    check_reach(config, topology)
    if config.tracking and is_main and config.stage in ("inner", "outer", "pipeline", "eval"):
        from rmas_train.training.trackers import check_trackers

        check_trackers(config.tracking)


def check_names(config: Config) -> None:
    """Agents and edges that ``data`` names exist.

    Raises:
        ConfigError: one does not; names the option and the nearest name.
    """
    known = [*config.agents, *config.topology.order]
    for key in ("role_texts", "feedback_texts", "inner_files"):
        _check_known(f"data.{key}", getattr(config.data, key), known, "agent")
    edges = [f"{edge.source}-{edge.target}" for edge in config.topology.edges]
    _check_known("data.translations", config.data.translations, edges, "edge")


def _check_known(key: str, named: Iterable[str], known: Iterable[str], what: str) -> None:
    for name in named:
        if name not in known:
            raise ConfigError(f"{key}.{name}: no such {what}. {did_you_mean(name, set(known))}")


def check_role_texts(config: Config, topology: Topology) -> None:
    """Every agent has a role text where training reads one.

    Raises:
        ConfigError: names the agent and the option.
    """
    training, given = config.training, config.data.role_texts
    inner, outer = (config.stage in ("pipeline", s) for s in ("inner", "outer"))
    if inner and training.inner.objective == "cosine":
        for name in topology.agents:
            if name not in given:
                raise ConfigError(
                    f"stage=inner needs a text that {name} should write; set "
                    f"data.role_texts.{name}=<column>."
                )
    if outer and training.outer.latents == "teacher_forced":
        for name in topology.agents:
            if name not in given and name != topology.decoder:
                raise ConfigError(
                    f"training.outer.latents=teacher_forced needs a text of {name}; set "
                    f"data.role_texts.{name}=<column>."
                )


def check_reach(config: Config, topology: Topology) -> None:
    """At every depth of the outer stage a gradient reaches a link from the decoder's answer.

    Raises:
        ConfigError: at the smallest depth it reaches none; names depths that work.
    """
    options = config.training.outer
    if config.stage not in ("outer", "pipeline") or options.objective != "answer":
        return
    least = config.rounds if options.depth == "fixed" else 1
    if _reached(config, topology, least):
        return
    depths = range(least + 1, least + len(topology.agents) + 2)
    works = next((d for d in depths if _reached(config, topology, d)), None)
    remedy = "" if works is None else f"set training.outer.depth=fixed and rounds={works}, or "
    raise ConfigError(
        f"topology.decoder={topology.decoder} with training.outer.depth={options.depth}: at "
        f"rounds={least} no link can be reached by a gradient from its answer, because no message "
        f"arrives before it; {remedy}choose another decoder."
    )


def _reached(config: Config, topology: Topology, rounds: int) -> set[str]:
    """Edges, and with ``train_inner`` agents, that a gradient can reach at this depth."""
    options = config.training.outer
    found = set(topology.live_edges(rounds, options.gradient_rounds))
    if options.train_inner:
        found |= topology.rolling_agents(rounds, options.gradient_rounds)
    return found
