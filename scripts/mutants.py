# ruff: noqa: E501  (each mutant is one line, to be read as a table)
"""Wrong lines, put into the package one at a time: which of them does no test notice?

    python scripts/mutants.py [--only PART_OF_A_NAME] [--list] [--out FILE]

Each mutant is one replacement in a copy of `src/`; the tests of its room run on that copy until the first failure. A mutant that
lives is a hole in the tests (or a line that does not matter: say so in `EXPECTED`). Not part of CI: some two hours on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 900  # seconds a mutant; one that hangs the tests is noticed


@dataclass(frozen=True)
class Mutant:
    """In `file`, `old` (which must stand there once) becomes `new`."""

    file: str
    old: str
    new: str
    what: str  # what a user would suffer

    @property
    def name(self) -> str:
        return f"{self.file}: {self.what}"


_STEP = ["tests/training/test_step.py", "tests/rewards", "tests/objectives"]
TESTS = {  # room -> what could notice, the likeliest first
    "objectives": ["tests/objectives", "tests/training/test_step.py"],
    "rewards": ["tests/rewards", "tests/objectives", "tests/training/test_step.py"],
    "models": [
        "tests/models",
        "tests/training/test_alike.py",
        "tests/training/test_step.py",
        "tests/rollouts",
        "tests/objectives",
    ],
    "rollouts": [
        "tests/rollouts",
        "tests/training/test_alike.py",
        "tests/training/test_step.py",
        "tests/models",
        "tests/evaluation",
    ],
    "training": ["tests/training/test_alike.py", *_STEP, "tests/training", "tests/test_config.py"],
    "runs": [
        "tests/training/test_resume.py",
        "tests/training/test_runlog.py",
        "tests/evaluation",
        "tests/runs",
        "tests/training",
    ],
    "evaluation": ["tests/evaluation", "tests/test_cli_eval.py", "tests/test_statistics.py"],
    "statistics.py": ["tests/test_statistics.py", "tests/evaluation"],
    "analysis": ["tests/analysis", "tests/test_cli_studies.py"],
    "tasks": ["tests/tasks", "tests/test_arithmetic_data.py"],
    "config": ["tests/test_config.py", "tests/test_schedule.py", "tests/objectives"],
    "health": ["tests/training/test_health.py", "tests/training/test_guard.py"],
}

M = Mutant
MUTANTS: tuple[Mutant, ...] = (
    # objectives
    M("objectives/grpo.py", "correction=1", "correction=0", "population standard deviation"),
    M("objectives/grpo.py", ".clamp(min=std_floor)", "", "no floor under the spread"),
    M("objectives/rloo.py", "(reward.shape[1] - 1)", "reward.shape[1]", "leave-one-out mean over B"),
    M("objectives/dr_grpo.py", "Credit(group_mean(reward),", "Credit(group_mean(reward) * 0,", "no baseline at all"),
    M("objectives/ema.py", "self.weights = self.config.decay * self.weights + 1.0", "self.weights = self.weights + 1.0", "weights of the moving average do not decay"),
    M("objectives/ema.py", "baselines.append(self.weighted / self.weights if self.weights else 0.0)\n", "baselines.append((self.weighted + value) / (self.weights + 1))\n", "a sample is part of its own moving average"),
    M("objectives/expert_iteration.py", "chosen = reward > self.threshold", "chosen = reward >= self.threshold", "equal rewards are all chosen"),
    M("objectives/expert_iteration.py", "chosen = reward > self.threshold\n", "self._remember(reward)\n        chosen = reward > self.threshold\n", "the batch enters its own threshold"),
    M("objectives/ppo.py", "log_ratio = (batch.logp - batch.behavior_logp) * batch.mask", "log_ratio = (batch.logp - batch.reference_logp) * batch.mask", "ratio to the frozen base (METHOD 3.2)"),
    M("objectives/ppo.py", ").minimum(", ").maximum(", "the optimistic bound"),
    M("objectives/ppo.py", "ratio.clamp(1 - clip, 1 + clip) * advantage)", "ratio.clamp(max=1 + clip) * advantage)", "clipped on one side only"),
    M("objectives/ppo.py", "weight.detach())", "weight)", "gradient through the weight of the actor reward"),
    M("objectives/loss.py", "-weights.actor_reward * credit.advantage(live_reward)", "weights.actor_reward * credit.advantage(live_reward)", "actor reward pushed the wrong way"),
    M("objectives/loss.py", 'weights.kl * reduce_tokens(kl, batch.mask, "mean")', 'weights.kl * reduce_tokens(kl, batch.mask, "sum")', "KL summed over tokens"),
    M("objectives/loss.py", "-weights.entropy * reduce_tokens", "weights.entropy * reduce_tokens", "entropy punished"),
    M("objectives/base.py", "total = (values * mask).sum(-1)", "total = values.sum(-1)", "masked tokens counted"),
    M("objectives/base.py", "return Credit(self.centre.reshape(-1)[index]", "return Credit(self.centre.flip(1).reshape(-1)[index]", "centres of other samples"),
    M("objectives/base.py", "return advantage if self.chosen is None else advantage.where(self.chosen, 0.0)", "return advantage", "all samples train in expert iteration"),
    # rewards
    M("rewards/prob.py", "answers.logp.exp()", "answers.logp_mean.exp()", "probability per token, not of the answer"),
    M("rewards/logprob.py", 'answer_logprob == "sum"', 'answer_logprob != "sum"', "sum and mean exchanged"),
    M("rewards/exact_match.py", "float(read.correct)", "1.0 - float(read.correct)", "wrong answers rewarded"),
    M("rewards/bound.py", "math.log(size - 1)", "math.log(size)", "the others' mean over B"),
    M("rewards/bound.py", "return answers.grouped(answers.logp).softmax(1).reshape(-1)", "return answers.logp.softmax(0)", "weights over all groups together"),
    M("rewards/mean_prob.py", ".clamp(0.0, 1.0)", "", "not clipped"),
    M("rewards/mean_prob.py", "return spread >= threshold", "return spread < threshold", "the wrong groups are left out"),
    M("rewards/readers.py", "return answers.logp_mean / len(self.config.readers)", "return answers.logp_mean", "the actor's share is the whole"),
    # models
    M("models/logprobs.py", "logits = logits / temperature", "logits = logits * temperature", "temperature the wrong way round"),
    M("models/logprobs.py", 'logits = logits.index_fill(-1, banned, float("-inf"))', "pass", "end tokens not masked under a fixed length"),
    M("models/logprobs.py", "(p * (log_p - log_q)", "(log_q.exp() * (log_q - log_p)", "KL the wrong way round"),
    M("models/logprobs.py", 'log_ratio.sub_(found["kl"][:, None]).mul_(p)', "log_ratio.mul_(p)", "the gradient of the KL without its mean"),
    M("models/logprobs.py", "of_logits /= tau", "pass", "the temperature is missing in gradients beside values"),
    M("models/logprobs.py", "mul_(p).neg_()", "mul_(p)", "the gradient of the entropy the wrong way round"),
    M("models/logprobs.py", "return total / torch.bincount(row, minlength=rows).clamp(min=1)", "return total / len(values)", "mean over all rows' tokens"),
    M("models/sequences.py", "starts = torch.tensor([len(prefix) - 1 for prefix in kept], device=lm.device)", "starts = torch.tensor([len(prefix) for prefix in kept], device=lm.device)", "padded pass off by one"),
    M("models/sequences.py", "positions = position[:, None] + torch.arange(ids.shape[1], device=ids.device)", "positions = mask.shape[1] + torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)", "positions count padding"),
    M("models/sequences.py", "mask = (column >= longest - lengths[:, None]).long()", "mask = torch.ones(len(prefixes), longest, dtype=torch.long, device=lm.device)", "padding of a prefix is seen"),
    M("models/sequences.py", "last = columns - lengths + kept - 1", "last = columns - lengths + kept", "a forked row sees one token too many"),
    M("models/language.py", "            module._disable_adapters = not on\n", "            pass\n", "the frozen policy is the actor"),
    M("models/folding.py", "grad_a = (b.t() @ rows_g.t()) @ rows_x * ctx.scale", "grad_a = (b.t() @ rows_g.t()) @ rows_x", "LoRA's scale is missing in A's gradient"),
    M("models/folding.py", "grad_x = grad @ torch.addmm(weight, b, a, alpha=ctx.scale)", "grad_x = grad @ weight", "the gradient passes the adapter by"),
    M("models/folding.py", "if x.dtype not in _FULL or any(tensor.dtype != x.dtype for tensor in (weight, a, b)):", "if weight.dtype != x.dtype:", "adapters are folded in bfloat16"),
    M("models/sequences.py", "(columns < count[:, None])", "(columns <= count[:, None])", "a draft token that was wrong stays visible"),
    M("models/caches.py", "torch.cat([pad(held, (0, 0, columns - held.shape[-2], 0)) for held in pair])", "torch.cat([pad(held, (0, 0, 0, columns - held.shape[-2])) for held in pair])", "texts that join end at other columns"),
    M("models/language.py", "            for layer, original in zip(layers, originals, strict=True):\n                layer.get_base_layer().weight.data = original\n", "            pass\n", "merged weights stay in the base"),
    M("models/probes.py", "        if _continues(lm, \"prompts of several lengths in one cache\", (_LONG, _SHORT), alone):", "        if True:", "every cache takes padding: NaN, or prompts that leak"),
    M("models/caches.py", "held[number] = state.index_select(0, index.to(state.device))", "pass", "recurrent states stay with other rows"),
    M("models/sequences.py", "shared = sharing == \"shared\" and lm.shares_prompts", "shared = sharing == \"shared\"", "gradients through states that are overwritten"),
    M("rollouts/fronts.py", "self.mask, self.position, self.hidden = self.mask[index], self.position[index], self.hidden[index]", "self.mask, self.position, self.hidden = self.mask[: len(index)], self.position[: len(index)], self.hidden[index]", "positions of other rows once rows have ended"),
    M("models/load.py", "setattr(part, key, 0.0)", "pass", "the base's own dropout stays on"),
    M("models/adapters.py", "parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))", "pass", "a bf16 adapter"),
    M("models/fingerprint.py", "int((columns * weights).sum())", "0", "weights in another order have the same fingerprint"),
    # rollouts
    M("rollouts/hf.py", "at = (uniform * cumulative[:, -1])[:, None]", "at = (uniform * cumulative[:, -1] * 0.9)[:, None]", "the tail is never drawn"),
    M("rollouts/hf.py", "uniforms[index, step])", "uniforms[: len(active), step])", "streams of other rows once rows have ended"),
    M("rollouts/hf.py", "step = (step + 1).clamp(", "step = (step + 0).clamp(", "each token of a CoT is drawn from the first number of its stream"),
    M("rollouts/hf.py", "or any(ends.over[job] and", "or any(False and", "rows that are over run beyond the model's positions"),
    M("rollouts/static.py", "last = min(columns, lm.context_tokens) - 1", "last = columns - 1", "places without a text run beyond the model's positions"),
    M("models/probes.py", 'return lm.caching == "padded" and once_tried(lm, _takes_back)', 'return lm.caching == "padded"', "tokens are taken back where attention counts columns"),
    M("rollouts/drafts.py", "kept = 1 + common_length(draft, tokens)", "kept = 2 + common_length(draft, tokens)", "a token is taken that answers another answer"),
    M("rollouts/fronts.py", "self.position = torch.cat([self.position, other.position])", "self.position = torch.cat([self.position, other.position + 1])", "texts that join begin a position late"),
    M("rollouts/static.py", "(width - fresh.lengths)[:, None]).clamp(max=width - 1)", "(width - fresh.lengths)[:, None] * 0).clamp(max=width - 1)", "prompts in one shape keep their padding"),
    M("rollouts/static.py", "policy = (self.lm.adapter_on, *", "policy = (True, *", "the frozen policy is sampled by the recorded actor"),
    M("rollouts/ends.py", "        kept -= 1\n    elif ended:", "        pass\n    elif ended:", "the end token stays in the CoT"),
    M("rollouts/hf.py", "sampled_log_distribution(lm.logits(rows.hidden), decoding.temperature or 1.0, banned)", "sampled_log_distribution(lm.logits(rows.hidden), 1.0, banned)", "temperature ignored in sampling"),
    M("rollouts/hf.py", "for pair in zip(self.row, token.tolist(), strict=True)", "for pair in ((0, one) for one in token.tolist())", "CoTs of different beginnings are joined"),
    M("rollouts/hf.py", "self.row = [self.row[number] for number in alive]", "self.row = self.row[: len(alive)]", "joined CoTs go on as those that have ended"),
    M("rollouts/reader.py", "scores.token_logp.index_select(0, token)", "scores.token_logp[: len(token)]", "answer tokens of other CoTs"),
    M("models/sequences.py", "if not lm.repeatable:", "if False:", "one dropout for all equal CoTs"),
    M("training/scoring.py", "place = torch.tensor(places, device=lm.device)", "place = torch.tensor(sorted(places), device=lm.device)", "scores of other CoTs"),
    M("rollouts/foreign.py", "if self._has is not None and self._has[1] == digest:", "if self._has is not None:", "the adapter is handed over once and never again"),
    M("rollouts/reader.py", "parts.append((prompter.reader_prompt(example, conditioning), before + prompter.target_ids(example), len(before)))", 'parts.append((prompter.reader_prompt(example, "non_markovian"), before + prompter.target_ids(example), len(before)))', "the reader sees the question"),
    M("rollouts/prompter.py", "return self.answer_ids(example) + self.end_ids(example)", "return self.answer_ids(example)", "the end of the reply is said to be scored and is not"),
    M("rollouts/reader.py", "        ends.append(len(prompter.end_ids(example)))", "        ends.append(0)", "the end of the reply counts as a gold token"),
    M("rollouts/reader.py", "return token in lm.terminators or prompter.is_end(token)", "return True", "every reply is said to end"),
    M("rollouts/ends.py", "first = len(text) - len(text.lstrip()) if decoding.stop_after_text else 0", "first = 0", "an answer that begins with a line break is empty"),
    M("config/files.py", 'recorded["objective"] = {**objective, "answer_end": "open"}', 'recorded["objective"] = {**objective}', "a run from before there was an end is gone on with as another"),
    M("training/scoring.py", "cots = [(s.example, s.cot.ids) for s in asked if s.correct]", "cots = [(s.example, s.cot.ids) for s in reversed(asked) if s.correct]", "ends of other replies"),
    M("rollouts/reader.py", "SampleRequest(prompter.reader_prompt(example, conditioning) + cot + prompter.header_ids, (key,))", "SampleRequest(prompter.reader_prompt(example, conditioning) + cot, (key,))", "answers are written without the header"),
    M("rollouts/streams.py", '"\\x1f".join(f"{type(part).__name__}:{part}" for part in key)', '"".join(f"{part}" for part in key)', "keys that run together"),
    # training
    M("training/importance.py", "weight = ratio.clamp(max=cap)", "weight = ratio", "importance ratios without a cap"),
    M("training/importance.py", "return constant + weight * (value - constant)", "return value", "importance weights computed and not used"),
    M("training/agreement.py", "return bool(share + _SIGNIFICANT * error < 0.5)", "return False", "a sampler with the adapter of the step before passes"),
    M("training/sampling.py", "    with learner.lm.frozen():\n        greedy", "    if True:\n        greedy", "b written and read by the actor"),
    M("training/step.py", 'torch_seed(learner.config.seed, "torch", step, learner.world.rank)', 'torch_seed(learner.config.seed, "torch", learner.world.rank)', "the same dropout masks in every step"),
    M("training/sampling.py", '"cot", step, question.id, first + i)', '"cot", step, question.id, i)', "a question that comes twice gets the same CoTs"),
    M("training/sampling.py", '"cot", step, question.id, first + i)', '"cot", question.id, first + i)', "every epoch draws the same noise"),
    M("training/sampling.py", 'again = ("attempt", learner.attempt) if learner.attempt else ()', "again = ()", "a rollback repeats what failed"),
    M("training/scoring.py", "temperature=config.rollouts.temperature.at(step, config.training.steps),", "temperature=1.0,", "scored at another temperature than sampled"),
    M("training/scoring.py", "    with torch.no_grad(), lm.frozen():\n        reference", "    with torch.no_grad():\n        reference", "KL to oneself"),
    M("training/readers.py", 'if name == "frozen":\n            with lm.frozen():', 'if name == "frozen":\n            with contextlib.nullcontext():', "reader=frozen ignored"),
    M("training/readers.py", "lerp_(parameter, 1 - self.decay)", "lerp_(parameter, self.decay)", "the slow reader is fast"),
    M("training/readers.py", "                parameter.data = self.weights[name]\n", "                pass\n", "the slow reader is the actor"),
    M("training/gradients.py", "weighted(surrogate, corrected.cot) * column([s.reward_weight for s in samples]) - baseline", "weighted(surrogate, corrected.cot) - baseline", "the group's weights of the bound are lost"),
    M("training/crediting.py", "scale=credit.scale / reward.shape[1])", "scale=credit.scale)", "the bound trains 1/B as fast"),
    M("training/crediting.py", "return replace(credit, chosen=kept if", "return replace(credit, chosen=~kept if", "only groups without spread train"),
    M("training/gradients.py", "part.sum() / whole, parameters", "part.sum() / len(samples), parameters", "the step grows with its micro-batches"),
    M("training/gradients.py", "(log_ratio.exp() - 1 - log_ratio)", "(-log_ratio)", "KL to the behaviour policy can be negative"),
    M("training/crediting.py", "sample.reward - (sample.baseline or 0.0)", "sample.reward", "rewards are not normalised"),
    M("training/crediting.py", "ours = range(learner.world.rank, len(everyone), learner.world.size)", "ours = range(len(groups))", "advantages of another process's questions"),
    M("training/update.py", "norm = torch.nn.utils.clip_grad_norm_(parameters, learner.config.training.max_grad_norm)", "norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])", "gradients are not clipped"),
    M("training/update.py", "learner.lr_scale * learning_rate(learner.config, step)", "learning_rate(learner.config, step)", "a rollback keeps the learning rate"),
    M("training/update.py", "step / (training.warmup_steps + 1)", "(step - 1) / (training.warmup_steps + 1)", "the first step of a warm-up does nothing"),
    M("training/questions.py", 'stream(self.seed, "order", epoch)', 'stream(self.seed, "order")', "the same order in every epoch"),
    M("training/distributed.py", "dist.all_reduce(flat)", "pass", "gradients are not summed over processes"),
    M("training/guard.py", 'self.verdict.verdict in ("healthy", "unknown")', 'self.verdict.verdict in ("healthy", "unknown", "warn")', "rollback to a checkpoint that was not well"),
    M("training/keeping.py", "score = [row[\"accuracy\"] or 0.0, row[\"logprob\"]]", "score = [row[\"logprob\"]]", "best checkpoint by likelihood alone"),
    M("runs/manifest.py", "    if now == was.base_fingerprint:", "    if True:", "resumed on another base model"),
    M("runs/manifest.py", "    if found not in fitting:", "    if False:", "a flipped byte of a checkpoint is accepted"),
    M("runs/manifest.py", "if environment.run and made.run and made.run != environment.run:", "if False:", "another run's checkpoint is accepted"),
    M("training/keeping.py", "    if not interim:\n        _drop_interim(run)", "", "the checkpoint of an interruption stays"),
    # runs
    M("runs/checkpoint.py", "            optimizer.load_state_dict(saved)", "            pass", "the optimizer starts anew on resume"),
    M("runs/directory.py", 'isinstance(at := row.get("step", 0), int) and at <= step', 'isinstance(at := row.get("step", 0), int) and at < step', "the row of the checkpoint's own step is dropped"),
    M("runs/targets.py", "return max(sorted(rows), key=lambda step: score(rows[step]))", "return max(sorted(rows))", "best is the last"),
    # evaluation and statistics
    M("evaluation/evaluate.py", 'with lm.frozen() if how.reader == "frozen" else lm.merged():', "with lm.merged():", "frozen readers are the actor"),
    M("evaluation/evaluate.py", '((how.seed, "evaluation", e.id),)', '((how.seed, "evaluation"),)', "all questions share a stream"),
    M("evaluation/store.py", 'key not in ("checkpoint", "step", "split")}\n        if self.how', 'key not in ("checkpoint", "step", "split", "seed")} | {"how": {"answer_end": "open"}}\n        if self.how', "readings made in different ways mix"),
    M("statistics.py", "total = max(ms_seed + ms_question - ms_rest, ms_seed, ms_question)", "total = ms_seed", "an interval over seeds and questions that leaves the questions out"),
    M("statistics.py", "score = ended - at_risk @ (ends / at_risk.sum(axis=0))", "score = ended - at_risk @ (ends / len(times))", "a log-rank test that forgets who is still at risk"),
    M("evaluation/compare.py", "mcnemar_exact(gained, lost)", "mcnemar_exact(gained, gained)", "a p-value of nothing"),
    M("statistics.py", "(k + z * z / 2) / (n + z * z), z", "k / n, z", "an interval around the rate itself"),
    M("statistics.py", "binomtest(b, b + c, 0.5).pvalue", 'binomtest(b, b + c, 0.5, alternative="greater").pvalue', "a one-sided test"),
    # analysis
    M("analysis/explain.py", "if position not in gone)", "if position in gone)", "all but the unit is taken out"),
    M("analysis/fragility.py", "return Drop(cot.key, before.logprob - after.logprob", "return Drop(cot.key, after.logprob - before.logprob", "damage counted as gain"),
    M("analysis/perturb.py", "return n * share.numerator // share.denominator", "return -(-n * share.numerator // share.denominator)", "ceiling for floor"),
    M("analysis/controls.py", "ids = encode_cot(study.setup.prompter, cot.text[:place])", "ids = encode_cot(study.setup.prompter, cot.text)", "the leak is not cut off"),
    # tasks
    M("tasks/prompts.py", "        text = pattern.sub(lambda match: f\"{match[0][0]} {match[0][1:]}\", text)", "        break", "questions can hold the prompt's tokens"),
    M("tasks/answers.py", 'text.rpartition("=")[2].replace(",", "")', 'text.rpartition("=")[2]', "1,080 read as 1"),
    M("tasks/folds.py", "sorted(map(normalized, example.choices))", "map(normalized, example.choices)", "the same question with choices in another order is another"),
    # config and health
    M("config/schedule.py", "return cls(\"constant\", value, value)", "return cls(\"constant\", value, 0.0)", "constants that vanish"),
    M("health/course.py", "_MARGIN = 4.0", "_MARGIN = 0.5", "noise called a collapse"),
    M("health/alarm.py", "if len(self.hits) >= self.needed:", "if self.hits:", "one spike is a verdict"),
    M("health/monitor.py", "sorted(self._speaking)", "sorted(self._busy)", "a collapse that went by is forgotten"),
    M("health/monitor.py", 'return "solved"\n        elif logprob', 'return "neither"\n        elif logprob', "success called entropy death"),
    M("health/detect.py", "nats += gained if gained < CAP else CAP", "nats += gained", "one spike is evidence enough"),
    M("health/noise.py", "(1.0 + phi) / (1.0 - phi))", "1.0)", "autocorrelated noise called a fall"),
    M("health/evaluations.py", "< 0.5 * best.accuracy\n        return", "< 2.0 * best.accuracy\n        return", "a dip called a collapse"),
    M("training/guard.py", "if onset is None or step < onset]", "]", "back to a checkpoint of the fall"),
)  # fmt: skip

EXPECTED: dict[str, str] = {}  # name of a mutant that may live -> why


def run(mutant: Mutant) -> dict[str, object]:
    """Apply it to a copy of the sources and run the tests of its room."""
    room = mutant.file.split("/")[0]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "src"
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        path = copy / "markovlm" / mutant.file
        path.write_text(path.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            "-m",
            "not long and not browser",
            *TESTS[room],
        ]
        began = time.monotonic()
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
            failed = next((line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
            noticed = done.returncode != 0
        except subprocess.TimeoutExpired:
            failed, noticed = f"no end after {LIMIT} s", True
    return {"mutant": mutant.name, "noticed": noticed, "by": failed[:200], "seconds": round(time.monotonic() - began, 1)}


def misplaced() -> list[str]:
    """Mutants whose line does not stand (once) where they look for it: the code has moved on."""
    return [
        mutant.name
        for mutant in MUTANTS
        if (ROOT / "src" / "markovlm" / mutant.file).read_text(encoding="utf-8").count(mutant.old) != 1
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants with this in their name")
    parser.add_argument("--list", action="store_true", help="list them and stop")
    parser.add_argument("--out", type=Path, help="JSONL of what came of each; those that are in it are not run again")
    arguments = parser.parse_args()
    wrong = misplaced()
    if wrong:
        print("not found exactly once:\n  " + "\n  ".join(wrong), file=sys.stderr)
        return 2
    chosen = [mutant for mutant in MUTANTS if arguments.only in mutant.name]
    if arguments.list:
        print("\n".join(mutant.name for mutant in chosen))
        return 0
    known = (
        [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out and arguments.out.exists() else []
    )
    results = {row["mutant"]: row for row in known}
    for mutant in chosen:
        if mutant.name in results:
            continue
        row = results[mutant.name] = run(mutant)
        print(f"{'noticed' if row['noticed'] else 'LIVES  '}  {row['seconds']:6.1f} s  {mutant.name}  {row['by']}", flush=True)
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
    living = [m.name for m in chosen if not results[m.name]["noticed"] and m.name not in EXPECTED]
    print(f"{len(chosen)} mutants, {len(chosen) - len(living)} noticed; living: {living or 'none'}")
    return 1 if living else 0


if __name__ == "__main__":
    sys.exit(main())
