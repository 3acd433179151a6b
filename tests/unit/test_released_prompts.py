"""Prompt files from a copy of the release's prompts: a file of its shape, in our words."""

import pytest
from tiny import make_agent

from rmas_train.agents.prompt_files import read_prompt
from rmas_train.agents.prompts import make_prompt
from rmas_train.command.main import main
from rmas_train.errors import ConfigError, DataError
from rmas_train.release.parsed_python import read_python
from rmas_train.release.released_prompts import convert_prompts, roles_of

SOURCE = r'''
from dataclasses import dataclass
import re
from typing import Optional

from helpers.tool_notes import system_prompt as TOOL_SYSTEM

SYSTEM_PROMPT = "One of several."
DELIBERATION_SYSTEM = TOOL_SYSTEM
PLANNER_SLOT = "<<LATENT_PLANNER_SLOT>>"
REFINED_SLOT = "<<LATENT_REFINED_SLOT>>"
FEEDBACK_SLOT = "<<LATENT_FEEDBACK_SLOT>>"
HIE_MATH_EXPERT_SLOT = "<<HIE_MATH_EXPERT_SLOT>>"
HIE_CODE_EXPERT_SLOT = "<<HIE_CODE_EXPERT_SLOT>>"
HIE_SCIENCE_EXPERT_SLOT = "<<HIE_SCIENCE_EXPERT_SLOT>>"
HIE_FEEDBACK_SLOT = "<<HIE_FEEDBACK_SLOT>>"
DISTILL_EXPERT_SLOT = "<<DISTILL_EXPERT_SLOT>>"
DISTILL_FEEDBACK_SLOT = "<<DISTILL_FEEDBACK_SLOT>>"
DELIBERATION_REFLECTOR_SLOT = "<<DELIBERATION_REFLECTOR_SLOT>>"
DELIBERATION_FEEDBACK_SLOT = "<<DELIBERATION_FEEDBACK_SLOT>>"
open("ran", "w").write("a file that is parsed is not run")


@dataclass(frozen=True)
class Bundle:
    planner: str


def get_system_prompt(mas_design: str = "chain", mas_role: Optional[str] = None) -> str:
    """What it is for."""
    role_name = str(mas_role or "").strip().lower()
    design = str(mas_design or "chain").strip().lower()
    if design == "deliberation" or role_name in {"deliberation_reflector"}:
        return DELIBERATION_SYSTEM
    return SYSTEM_PROMPT


def _kind(task_type):
    task_type = str(task_type or "").strip().lower()
    if task_type in {"function", "functional"}:
        return "function"
    return "complete"


def interface(task_type, fn_name=None):
    if _kind(task_type) == "function":
        if fn_name:
            return f"Write `{fn_name}` alone."
        return "Write that function alone."
    return "Write a whole program."


def context(question, mas_task="math", task_type="complete", fn_name=None):
    mas_task = str(mas_task or "math").strip().lower()
    if mas_task == "code":
        line = interface(task_type, fn_name=fn_name)
        return f"{line}\n" "Task:\n" f"{question}\n"
    if mas_task == "choice":
        question = str(question).rstrip()
        if "name the option" not in question.lower():
            question = (f"{question}\n\n" "Name the option (A/B/C/D).")
        return "Question:\n" f"{question}\n"
    return "Question:\n" f"{question}\n"


def last_line(question, mas_task="math"):
    if mas_task == "code":
        return "Put it into ```python\\n<code>\\n```."
    is_choice = bool(re.search(r"(?mi)^\s*[A-D]\s*[\.\):\-]\s+", question))
    if is_choice:
        return "Say \\boxed{A}."
    return "Say \\boxed{1}."


def build_math_planner_prompt(question):
    return "Plan.\n" f"{question}\n" "Step 1"


def build_math_planner_prompt_with_feedback_slot(question):
    return "Round 2.\n" f"{question}\n" f"{FEEDBACK_SLOT}\n" "Better plan"


def build_math_refiner_prompt(question, planner_output):
    return f"Refine.\n{question}\n{planner_output}\nStep 1"


def build_math_refiner_prompt_with_slot(question):
    return build_math_refiner_prompt(question, PLANNER_SLOT)


def build_math_solver_prompt(question, refined_plan, args=None):
    is_choice = bool(re.search(r"(?mi)^\s*[A-D]\s*[\.\):\-]\s+", question))
    mode = int(getattr(args, "choice_old_prompt", 0)) if (is_choice and args is not None) else 0
    old = mode in (1, 2, 3)
    if mode == 2:
        final = "Only the letter."
    else:
        final = "The letter." if is_choice else "The number."
    if args is not None and args.solver_pre_question == 1:
        return f"{question}\n{refined_plan}\n{final}"
    between = "\n" if old else "\n\n"
    return "Solve.\n" f"{refined_plan}\n" f"{question}{between}" f"{final}"


def build_math_solver_prompt_with_slots(question, args=None, mas_shape="chain"):
    if mas_shape == "chain":
        return build_math_solver_prompt(question, REFINED_SLOT, args)
    raise ValueError(f"Unsupported: {mas_shape}")


def build_code_planner_prompt(question, task_type, fn_name=None):
    line = interface(task_type, fn_name=fn_name)
    return f"Plan code.\n{line}\n{question}\nStep 1"


def build_code_planner_prompt_with_feedback_slot(question, task_type, fn_name=None):
    line = interface(task_type, fn_name=fn_name)
    return f"Later.\n{line}\n{question}\n{FEEDBACK_SLOT}\nStep 1"


def build_code_refiner_prompt_with_slot(question, task_type, fn_name=None):
    return f"Refine.\n{interface(task_type, fn_name=fn_name)}\n{question}\n{PLANNER_SLOT}"


def build_code_solver_prompt_with_slots(
    question, task_type, args=None, mas_shape="chain", fn_name=None
):
    return f"Code.\n{interface(task_type, fn_name)}\n{REFINED_SLOT}\n---\n{question}\nNow"


def _expert(question, hie_role, extra, mas_task, task_type, fn_name):
    labels = {"hie_math_expert": "m", "hie_code_expert": "c", "hie_science_expert": "s"}
    if str(hie_role or "").strip().lower() not in labels:
        raise ValueError("no")
    about = context(question, mas_task=mas_task, task_type=task_type, fn_name=fn_name)
    return f"Expert {labels[hie_role]}.\n{extra}{about}"


def build_hie_expert_prompt(
    question, hie_role, mas_task="math", task_type="complete", fn_name=None
):
    return _expert(question, hie_role, "", mas_task, task_type, fn_name)


def build_hie_expert_prompt_with_feedback_slot(
    question, hie_role, mas_task="math", task_type="complete", fn_name=None
):
    return _expert(question, hie_role, f"{HIE_FEEDBACK_SLOT}\n", mas_task, task_type, fn_name)


def build_hie_summarizer_prompt_with_slots(
    question, mas_task="math", task_type="complete", fn_name=None
):
    about = context(question, mas_task=mas_task, task_type=task_type, fn_name=fn_name)
    slots = f"{HIE_MATH_EXPERT_SLOT}\n{HIE_CODE_EXPERT_SLOT}\n{HIE_SCIENCE_EXPERT_SLOT}\n"
    return "Sum up.\n" + slots + "---\n" + about + last_line(question, mas_task=mas_task)


def build_distill_expert_prompt(question, mas_task="math", task_type="complete", fn_name=None):
    return "Expert.\n" + context(question, mas_task, task_type, fn_name) + "Plan."


def build_distill_expert_prompt_with_feedback_slot(
    question, mas_task="math", task_type="complete", fn_name=None
):
    about = context(question, mas_task, task_type, fn_name)
    return f"Expert.\n{DISTILL_FEEDBACK_SLOT}\n{about}Plan."


def build_distill_learner_prompt_with_slot(
    question, mas_task="math", task_type="complete", fn_name=None
):
    about = context(question, mas_task, task_type, fn_name)
    return f"Learner.\n{DISTILL_EXPERT_SLOT}\n---\n{about}{last_line(question, mas_task)}"


def build_deliberation_reflector_prompt(
    question, mas_task="math", task_type="complete", fn_name=None
):
    return "Reflect.\n" + context(question, mas_task, task_type, fn_name)


def build_deliberation_reflector_prompt_with_feedback_slot(
    question, mas_task="math", task_type="complete", fn_name=None
):
    return f"Reflect.\n{DELIBERATION_FEEDBACK_SLOT}\n" + context(question, mas_task)


def build_deliberation_toolcaller_prompt_with_slot(
    question, mas_task="math", task_type="complete", fn_name=None
):
    about = context(question, mas_task, task_type, fn_name)
    return f"Call.\n{DELIBERATION_REFLECTOR_SLOT}\n---\n{about}{last_line(question, mas_task)}"
'''
ROWS = [
    {"question": "one two"},
    {"question": "one\nA) two\nB) three"},
    {"question": "one. Name the OPTION\nA. two", "type": None},
    {"question": "one", "type": "function", "fn_name": "go"},
    {"question": "one", "type": " Functional"},
    {"question": "one", "type": "stdin", "fn_name": ""},
]
# How the slot's constant is filled in where the release's function is really called.
NAMES = {"code": ("question", "task_type", "fn_name"), "math": ("question",)}


@pytest.fixture
def source(tmp_path):
    (tmp_path / "copy" / "helpers").mkdir(parents=True)
    notes = tmp_path / "copy" / "helpers" / "tool_notes.py"
    notes.write_text('system_prompt = "With " + "tools."\n')
    path = tmp_path / "copy" / "prompts.py"
    path.write_text(SOURCE)
    return path


def really(source, ask, row, monkeypatch):
    """The function of the file, run, as the release runs it: what the converter never does."""
    names = {}
    code = SOURCE.replace("from helpers.tool_notes import system_prompt as TOOL_SYSTEM", "")
    code = code.replace('open("ran", "w").write("a file that is parsed is not run")', "")
    exec(f"TOOL_SYSTEM = 'With tools.'\n{code}", names)
    values = {"task_type": row.get("type"), "fn_name": row.get("fn_name")}
    given = {n: values.get(n, row["question"]) for n in ask.row} | dict(ask.given)
    if "args" in given:
        given["args"] = type("Args", (), given["args"])
    return names[ask.name](**given), names


@pytest.mark.parametrize("task", ["math", "code", "choice"])
@pytest.mark.parametrize("style", ["sequential", "mixture", "distillation", "deliberation"])
def test_each_row_reads_what_the_release_writes(source, tmp_path, style, task, monkeypatch):
    folder = tmp_path / "prompts"
    convert_prompts(source, folder, style, task)
    assert not list(tmp_path.rglob("ran"))
    agent = make_agent("planner")
    for name, role in roles_of(style, task, bugs=False).items():
        texts = read_prompt(folder, name, None, None)
        prompt = make_prompt(agent, texts, f"{name}.yaml", list(role.slots.values()))
        for ask, first in ((role.user, False), (role.first, True)):
            for row in ROWS if ask else []:
                wanted, names = really(source, ask, row, monkeypatch)
                for constant, sender in role.slots.items():
                    wanted = wanted.replace(names[constant], f"<<message:{sender}>>")
                # The row's question stands where the mark is, whatever it holds.
                ours = prompt.encode([row], 2, first)[0]
                plain = make_prompt(
                    agent,
                    {
                        "system": texts["system"],
                        "user": wanted.replace(row["question"], "<<question>>"),
                    },
                    "plain",
                    [] if first else list(role.slots.values()),
                )
                assert ours == plain.encode([row], 2, False)[0], (style, task, name, row)


def test_slots_stand_where_the_release_has_them(source, tmp_path):
    convert_prompts(source, tmp_path / "p", "sequential", "math")
    planner = read_prompt(tmp_path / "p", "planner", None, None)
    assert planner["user"] == "Round 2.\n<<question>>\n<<message:solver>>\nBetter plan"
    assert planner["user_first"] == "Plan.\n<<question>>\nStep 1"
    solver = read_prompt(tmp_path / "p", "solver", None, None)
    assert solver["user"].startswith("Solve.\n<<message:critic>>\n<<question>>")
    assert solver["system"] == "One of several."
    convert_prompts(source, tmp_path / "d", "deliberation", "math")
    assert read_prompt(tmp_path / "d", "toolcaller", None, None)["system"] == "With tools."


def test_the_known_bug_is_there_if_asked_for(source, tmp_path):
    convert_prompts(source, tmp_path / "right", "sequential", "code")
    convert_prompts(source, tmp_path / "as_released", "sequential", "code", bugs=True)
    right, bug = (
        read_prompt(tmp_path / f, "planner", None, None) for f in ("right", "as_released")
    )
    assert right["user"].startswith("Later.") and bug["user"].startswith("Round 2.")
    assert right["user_first"] == bug["user_first"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            ("def build_math_refiner_prompt_with_slot", "def other"),
            "has no function build_math_ref",
        ),
        (
            ('PLANNER_SLOT = "<<LATENT_PLANNER_SLOT>>"', ""),
            "line [0-9]+: PLANNER_SLOT is not known",
        ),
        (('return "Plan.\\n"', 'return input() + "Plan.\\n"'), "a call of input is not understood"),
        (
            ('return "Plan.\\n" f"{question}\\n" "Step 1"', 'return "".join(x for x in "a")'),
            "not understood",
        ),
        (
            (
                "def build_math_planner_prompt(question):",
                "def build_math_planner_prompt(question):\n    while True:\n        pass",
            ),
            "while is not understood",
        ),
        (
            (
                "return build_math_refiner_prompt(question, PLANNER_SLOT)",
                "return build_math_refiner_prompt_with_slot(question)",
            ),
            "calls itself too often",
        ),
        ((r"(?mi)^\s*[A-D]\s*[\.\):\-]\s+", "(a+)+$"), "only lines with an option's letter"),
        (("def interface(", "def interface(:"), "cannot be read as Python"),
    ],
)
def test_what_is_not_understood_is_named(source, tmp_path, change, why):
    assert change[0] in SOURCE
    source.write_text(SOURCE.replace(*change))
    with pytest.raises(DataError, match=f"prompts.py.*{why}"):
        convert_prompts(source, tmp_path / "p", "sequential", "math")
    assert not (tmp_path / "p").exists()


def test_texts_that_grow_for_ever_are_refused(tmp_path):
    double = "".join(f"A{i + 1} = A{i} + A{i}\n" for i in range(40))
    path = tmp_path / "prompts.py"
    path.write_text(f'A0 = "0123456789"\n{double}\ndef f():\n    return A40\n')
    with pytest.raises(DataError, match="A40 is not known"):
        list(read_python(path).every("f", {}))


def test_the_command(source, tmp_path, capsys):
    assert main(["prompts", "convert", str(source), str(tmp_path / "p"), "--style", "mixture"]) == 0
    assert "data.prompts=" in capsys.readouterr().out
    assert main(["prompts", "convert", str(source), str(tmp_path / "p")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["prompts", "convert", str(source), str(tmp_path / "q"), "--style", "mixtur"]) == 2
    assert "did you mean" in capsys.readouterr().err.lower()
    assert main(["prompts", "convert", str(tmp_path / "none.py"), str(tmp_path / "q")]) == 2
    with pytest.raises(ConfigError, match="no cod"):
        convert_prompts(source, tmp_path / "q", "sequential", "cod")
