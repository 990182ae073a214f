"""What an audit would read, before it does."""

from __future__ import annotations

from typing import Any

from markovlm.analysis.scoring import encode_cot
from markovlm.auditing.plan import AuditRequest, ServerTarget, cost
from markovlm.auditing.readers import budget_named
from markovlm.auditing.server import Characters
from markovlm.errors import UserError
from markovlm.models.load import load_tokenizer
from markovlm.rollouts.prompter import build_prompter
from markovlm.runs.asking import task_of
from markovlm.runs.setup import resolve_config
from markovlm.tasks.extractors import with_extractors


def preview(request: AuditRequest) -> dict[str, Any]:
    """JSON: groups, how answers are read, and tokens by reader and part."""
    material = request.material
    examples = [cot.example for cot in material.cots]
    readers: list[dict[str, Any]] = []
    for name, target in request.readers:
        try:
            served = isinstance(target, ServerTarget)
            tokenizer = Characters(None) if served else load_tokenizer(target.config.model, target.config.loading)
            task = with_extractors(task_of(target.config), target.config.evaluation.extractors)
            config = resolve_config(target.config, task, tokenizer, examples)
            prompter = build_prompter(
                task,
                tokenizer,
                target.config.prompt.style,
                budget_named(target),
                config.prompt.answer_header,
                examples,
                answer_end=config.objective.answer_end,
            )
            lengths = [
                (len(prompter.reader_prompt(cot.example, "non_markovian")), len(encode_cot(prompter, cot.text)))
                for cot in material.cots
            ]
        except UserError as error:
            raise UserError(f"--reader {name}: {error}") from error
        if served:  # whose tokens are not known here: about four characters each
            lengths = [(prompt // 4, cot // 4) for prompt, cot in lengths]
        tokens = cost(request, lengths)
        longest = max((c for _, c in lengths), default=0)
        readers.append({"reader": name, "tokens": sum(tokens.values()), "by_part": tokens, "longest_cot": longest})
    return {
        "kind": "audit preview",
        "files": [str(path) for path in request.files],
        "sources": list(material.kinds),
        "answers": {"type": material.answer_type, "task": material.task},
        "groups": [
            {"group": group, "n": len({cot.example.id for cot in cots}), "cots": len(cots)}
            for group, cots in material.groups.items()
        ],
        "skipped": {"rows": len(material.skipped), "first": list(material.skipped[:10])},
        "notes": list(material.notes),
        "readers": readers,
        "out": str(request.out),
    }
