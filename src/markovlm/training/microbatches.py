"""Which samples are scored and trained together."""

from __future__ import annotations

from collections.abc import Sequence

from markovlm.chains.prompter import Turn
from markovlm.training.records import Learner, Sample


def microbatches(learner: Learner, samples: Sequence[Sample]) -> list[list[int]]:
    """Like `within_budget`; for chains one turn after another, no two in one micro-batch, so that memory does not grow with T."""
    if not learner.config.chain.on:
        return within_budget(learner, samples)
    steps: dict[int, list[int]] = {}
    for i, sample in enumerate(samples):
        assert isinstance(sample.example, Turn)
        steps.setdefault(sample.example.t, []).append(i)
    ordered = [steps[t] for t in sorted(steps)]
    return [[own[i] for i in part] for own in ordered for part in within_budget(learner, [samples[i] for i in own])]


def within_budget(learner: Learner, samples: Sequence[Sample]) -> list[list[int]]:
    """Indices of samples, neighbours together, such that CoT pass and answer pass fit the token budget."""
    budget = learner.config.training.microbatch_tokens
    plan: list[list[int]] = [[]]
    longest = 0
    for i, sample in enumerate(samples):
        size = _tokens(learner, sample)
        longest = max(longest, size)
        if plan[-1] and (len(plan[-1]) + 1) * longest > budget:
            plan.append([])
            longest = size
        plan[-1].append(i)
    return plan


def _tokens(learner: Learner, sample: Sample) -> int:
    """Of a sample's two continuations, and of its prompts where they are not shared."""
    prompter, cot = learner.prompter, len(sample.cot.tokens)
    if isinstance(sample.example, Turn):  # every target is a row of its own, with its own prefix where the past is visible
        rows = [cot + len(target.between) + len(target.tokens) for target in sample.example.targets]
        alone = learner.sharing == "padded" or learner.config.objective.conditioning == "non_markovian"
        prefixes = len(sample.example.prompt) + sum(len(target.prefix) for target in sample.example.targets) * alone
        return cot + sum(rows) + prefixes
    answer = len(prompter.header_ids) + len(prompter.target_ids(sample.example))
    own = 2 * cot + answer
    if learner.sharing == "padded":
        reader = prompter.reader_prompt(sample.example, learner.config.objective.conditioning)
        own += len(prompter.cot_prompt(sample.example)) + len(reader)
    return own
