"""Command lines: keys, types, ranges, characters, YAML inside values, options that contradict."""

from __future__ import annotations

from random import Random

from hostile.case import ODD_TEXTS, Case, Makers
from hostile.options import CHOICES, CONTRADICTIONS, DICTS, FLOATS, GROUPS, INTS, LISTS, TEXTS

MAKERS = Makers()


def outer(name: str, *typed: str) -> Case:
    stages = {t.split("=")[0] for t in typed}
    begin = [] if "stage" in stages or "-m" in typed else ["stage=outer"]
    if any("evaluation." in t for t in typed) and begin:
        begin = ["stage=eval"]
    return Case(name, [*begin, *typed])


def typo(random: Random, key: str) -> str:
    at = random.randrange(len(key))
    return random.choice(
        [key[:at] + key[at + 1 :], key[:at] + "z" + key[at:], key + "s", key[::-1]]
    )


@MAKERS
def unknown_key(random: Random) -> Case:
    key = typo(random, random.choice(INTS + FLOATS + TEXTS + LISTS + CHOICES))
    return outer(f"unknown key {key}", f"{key}=1")


@MAKERS
def wrong_type_int(random: Random) -> Case:
    values = ["two", "1.5", "[1]", "{a:1}", "true", "''", "1e3", "0x10", "１", "1_0", "--1", "+1"]
    return outer("wrong type", f"{random.choice(INTS)}={random.choice(values)}")


@MAKERS
def wrong_type_float(random: Random) -> Case:
    values = ["much", "[1.0]", "{a:1}", "true", "''", "1,5", "1e", "0x1p3", "1.0.0", "½"]
    return outer("wrong type", f"{random.choice(FLOATS)}={random.choice(values)}")


@MAKERS
def out_of_range(random: Random) -> Case:
    key = random.choice(INTS + FLOATS)
    return outer("out of range", f"{key}={random.choice([-1, -(10**20), -0.5, 0, -1e-300])}")


@MAKERS
def huge(random: Random) -> Case:
    values = [10**12, 2**31, 2**63, 10**400, "9" * 5000]
    return outer("huge number", f"{random.choice(INTS)}={random.choice(values)}")


@MAKERS
def huge_float(random: Random) -> Case:
    return outer("huge number", f"{random.choice(FLOATS)}={random.choice(['1e300', '1' * 400])}")


@MAKERS
def not_a_number(random: Random) -> Case:
    values = ["nan", ".nan", "inf", ".inf", "-inf", "1e999", "-.INF"]
    return outer("not finite", f"{random.choice(FLOATS + INTS)}={random.choice(values)}")


@MAKERS
def empty(random: Random) -> Case:
    key = random.choice(INTS + FLOATS + TEXTS + LISTS + CHOICES + DICTS)
    return outer("empty value", f"{key}={random.choice(['', 'null', chr(39) * 2, '[]', '{}'])}")


@MAKERS
def odd_text(random: Random) -> Case:
    return outer("odd text", f"{random.choice(TEXTS)}={random.choice(ODD_TEXTS)}")


@MAKERS
def quoted_odd_text(random: Random) -> Case:
    text = random.choice(ODD_TEXTS).replace("\\", "").replace("'", "")
    return outer("odd text in quotes", f"{random.choice(TEXTS)}='{text}'")


@MAKERS
def odd_choice(random: Random) -> Case:
    return outer("odd choice", f"{random.choice(CHOICES)}={random.choice(ODD_TEXTS)}")


@MAKERS
def choice_typo(random: Random) -> Case:
    key = random.choice(CHOICES)
    return outer("unknown choice", f"{key}={typo(random, key.split('.')[-1])}")


@MAKERS
def odd_group(random: Random) -> Case:
    values = [*ODD_TEXTS, "relay.yaml", "../relay", "[relay]", "{a:1}", "1", "rely"]
    return outer("unknown group choice", f"{random.choice(GROUPS)}={random.choice(values)}")


@MAKERS
def scalar_for_list(random: Random) -> Case:
    values = ["1", "wandb", "{a:1}", "[[1]]", "[{a:1}]", "[null]", "[nan]", "[-1]", "[a,b,c]"]
    return outer("scalar for a list", f"{random.choice(LISTS)}={random.choice(values)}")


@MAKERS
def scalar_for_dict(random: Random) -> Case:
    values = ["1", "text", "[1]", "{a:1}", "{1:2}", "{a:{b:c}}"]
    return outer("scalar for a group of options", f"{random.choice(DICTS)}={random.choice(values)}")


@MAKERS
def target(random: Random) -> Case:
    place = random.choice(["+data._target_", "links._target_", "agents.planner._target_"])
    typed = random.choice([f"{place}=os.system", "data.recipe_options={_target_:os.system}"])
    return outer("_target_", typed)


@MAKERS
def contradiction(random: Random) -> Case:
    return outer("options that contradict", *random.choice(CONTRADICTIONS))


@MAKERS
def interpolation(random: Random) -> Case:
    key = random.choice(INTS + TEXTS + LISTS)
    own = ["${" + key + "}", "${nothing}", "${oc.env:NOT_SET}", "${", "${a:b:c}", "${..}", "\\${"]
    return outer("interpolation", f"{key}={random.choice(own)}")


@MAKERS
def yaml_inside(random: Random) -> Case:
    values = ["{a: &x 1, b: *x}", "1\nstage: eval", "!!python/name:os.system", "[" * 300, "{a: [}"]
    values += ["]", "{", "'", '"', "# comment", "? a", "|", ">-", "@a", "`a`", "a: b: c"]
    return outer("YAML in a value", f"{random.choice(TEXTS + INTS)}={random.choice(values)}")


@MAKERS
def not_an_override(random: Random) -> Case:
    typed = ["=3", "==", ".=1", "a..b=1", "+", "~rounds", "~rounds=3", "@x=1", "rounds", "--x=1"]
    typed += ["a@b=c", "rounds =1", " rounds=1", "links/variant=linear", "training=fast", "\x00=1"]
    typed += [
        "ro\nunds=1",
        "++",
        "-rounds=1",
        "agents.=1",
        ".agents=1",
        "\ud800=1",
        "agents..model=x",
    ]
    return outer("not key=value", random.choice(typed))


@MAKERS
def odd_paths(random: Random) -> Case:
    paths = ["/dev/null/x", "/dev/full", "/proc/self", ".", "a" * 300, "data/train.jsonl", "~", "/"]
    key = random.choice(["data.folder", "data.prompts", "inner", "resume", "data.train", "run_dir"])
    paths = paths[:2] + paths[4:6] if key == "run_dir" else paths
    return outer("odd path", f"{key}={random.choice(paths)}")


@MAKERS
def odd_run(random: Random) -> Case:
    path = random.choice([*ODD_TEXTS, "/proc", "data", ".", "agents", "run/outer", "run/inner"])
    return Case("odd run folder", ["stage=eval", f"run={path}"])


@MAKERS
def odd_sweep(random: Random) -> Case:
    typed = ["rounds=0,1", "rounds=one,two", "roundz=1,2", "rounds=", "links.variant=a,b", "a=b,c"]
    typed += ["hydra/launcher=nothing", "hydra.sweep.dir=x", "links.variant=glob(*)", "rounds=1,"]
    typed += [
        "rounds=range(0,2)",
        "seed=choice(a,b)",
        "seed=interval(0,1)",
        "hydra.launcher._target_=x",
    ]
    return outer("sweep", "-m", random.choice(typed))


@MAKERS
def pattern(random: Random) -> Case:
    values = ["'('", "'(?P<answer>'", "'(?P<answer>x){99999999999}'", "'[z-a](?P<answer>.)'", "."]
    values += ["'(?P<answer>zzz)'", "'(?P<answer>(?P<answer>x))'", "'(?P<1>x)'", "'(?P<answer>)'"]
    values += ["'" + "(" * 200 + "?P<answer>x'"]
    return outer("answer pattern", f"data.answer_pattern={random.choice(values)}")


@MAKERS
def plan_numbers(random: Random) -> Case:
    key = random.choice(["prefix_tokens", "devices", "device_gib", "tflops", "gib_per_second"])
    value = random.choice(["0", "-1", "nan", "inf", "[]", "[0]", "text", "null", str(10**12)])
    given = ["plan.prefix_tokens=4", "plan.suffix_tokens=2", "plan.answer_tokens=2"]
    given += ["plan.tflops=1", "plan.gib_per_second=1", f"plan.{key}={value}"]
    return Case("plan", ["stage=plan", *given])


@MAKERS
def many_overrides(random: Random) -> Case:
    count = random.choice([200, 1000])
    return outer(
        "very many options", *(f"data.role_texts.x{i}={i}" for i in range(count)), "rounds=0"
    )


@MAKERS
def random_characters(random: Random) -> Case:
    text = "".join(
        chr(random.choice([random.randrange(1, 128), random.randrange(1, 0xD7FF)]))
        for _ in range(random.randrange(1, 30))
    )
    return outer("random characters", f"{random.choice(TEXTS[4:] + INTS)}={text}")
