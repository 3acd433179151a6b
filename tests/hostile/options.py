"""Options by type, and combinations of them that contradict each other."""

from __future__ import annotations

from hostile.case import names

INTS = names("""
rounds latent_length seed training.outer.steps training.outer.batch_size
training.outer.micro_batch_size training.outer.log_every training.outer.save_every
training.outer.keep training.outer.profile_every training.outer.warmup_steps
training.outer.gradient_rounds
evaluation.batch_size evaluation.max_new_tokens evaluation.max_rows evaluation.retry_tokens
runtime.threads
runtime.processes data.max_length data.test_rows
""")
FLOATS = names("""
training.outer.lr training.outer.weight_decay training.outer.eps training.outer.clip_norm
training.outer.save_minutes training.outer.clip_message training.outer.prefix_cache_gib
training.outer.earlier_rounds training.outer.self_distill training.outer.text_messages
training.outer.message_noise
links.ridge links.start_noise runtime.timeout_minutes data.test_seconds data.problem_seconds
""")
TEXTS = names("""
name run_dir inner resume data.name data.folder data.train data.test data.prompts
data.answer_pattern data.recipe topology.name topology.decoder agents.planner.model
agents.critic.revision data.role_texts.planner data.columns.question data.grader
evaluation.judge evaluation.judge_model evaluation.judge_key_variable
evaluation.textgrad_url evaluation.textgrad_model evaluation.textgrad_key_variable
""")
LISTS = names("""
tracking evaluation.systems evaluation.rounds plan.devices topology.order topology.edges
training.outer.betas
""")
DICTS = names("""
agents topology links data training evaluation runtime data.role_texts plan data.columns
""")
CHOICES = names("""
stage links.variant links.norm links.edge_input links.message_update links.init training.outer.depth
training.outer.recompute training.outer.latents training.outer.feedback
training.outer.gradient training.outer.clip_scope evaluation.decoding runtime.backend
runtime.placement runtime.device agents.solver.dtype agents.solver.attention
""")
GROUPS = names("""
agents topology links data runtime experiment
""")
CONTRADICTIONS = [
    ["links.norm=layernorm", "links.variant=linear"],
    ["links.variant=2layer", "links.init=aligned"],
    ["training.outer.gradient=window"],
    ["training.outer.gradient_steps=2"],
    ["training.outer.latents=teacher_forced", "training.outer.gradient=parallel"],
    ["training.outer.feedback=gold_answer"],
    ["latent_length=0"],
    ["runtime.backend=zero2", "runtime.placement=sharded"],
    ["runtime.backend=zero3", "training.outer.recompute=agent"],
    ["runtime.backend=single", "runtime.processes=3"],
    ["runtime.placement=per_agent", "runtime.backend=ddp"],
    ["resume=auto", "run=nowhere"],
    ["stage=eval", "run=run", "agents=relay"],
    ["stage=eval", "run=run", "rounds=0,1"],
    ["stage=eval", "run=run", "latent_length=two"],
    ["data.test=train.jsonl", "data.train=test.jsonl", "rounds=[1]"],
    ["rounds=1", "rounds=0"],
    ["inner=run/outer/links"],
    ["topology.order=[planner,critic]"],
    ["topology.order=[solver,critic,planner]"],
    ["topology.decoder=planner"],
    ["topology.edges=[{source:planner,target:planner}]"],
    ["topology.edges=[]"],
    ["topology.edges=[{source:planner,target:critic},{source:planner,target:critic}]"],
    ["agents.extra.model=agents/planner"],
    ["data.recipe=relay"],
    ["evaluation.systems=[start,start,null]", "stage=eval"],
    ["evaluation.rounds=[]", "stage=eval"],
    ["stage=eval", "run=run", "data=eval/math500", "data=eval/gpqa"],
    ["stage=eval", "run=run", "data=eval/mbppplus"],
    ["stage=eval", "run=run", "data.grader=llm"],
    ["data=eval/aime25"],
    ["data.train=null"],
    ["data.columns={question: nothing}"],
]
