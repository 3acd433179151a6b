"""The stages in order: each reads the config and its predecessor's files, and writes its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rmas_train.compose import import_plugins
from rmas_train.config import Config
from rmas_train.links.modules import LinkSet
from rmas_train.objectives.base import Factory
from rmas_train.runs.identity import equal_inner, inner_identity
from rmas_train.runs.load import Loaded, load_run
from rmas_train.runs.session import held, is_main_process, session
from rmas_train.runs.tables import Tables, load_tables
from rmas_train.runtime.runtime import Runtime
from rmas_train.stages.train import begin_stage, check_layout, inner_share, run_inner, run_outer
from rmas_train.support.output import say
from rmas_train.tools.calls import Toolbox
from rmas_train.topology import build_topology
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
    if stage in ("eval", "pipeline"):
        from rmas_train.stages.evaluate import run_eval

        run_eval(config, loaded, runtime, tools)
    if stage == "analyse":
        from rmas_train.stages.analyse import run_analyses

        run_analyses(config, loaded, runtime)


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
    build_topology(config.topology, config.agents)
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
    for table in (tables.train, tables.test):
        grader.check(table)
