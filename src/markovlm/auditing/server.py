"""A reader behind an OpenAI-compatible server (`--reader http://HOST:8000`): a 70B model reads without a GPU here.

Its tokens are known only to the server: here a token is a character, so that the studies cut and perturb the same texts as for any
other reader, and every sequence is sent as text. The server's prefix cache computes once what variants share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from markovlm.analysis.perturb import PERTURBATIONS
from markovlm.analysis.scoring import Scored, Variant
from markovlm.analysis.study import Counting, Reader, StudyCot
from markovlm.auditing.endpoint import SPECIAL, Endpoint, Template
from markovlm.auditing.plan import AuditRequest, ServerTarget
from markovlm.auditing.readers import SIGHTED, OpenReader, budget_named, check_prompts, how_read, identity_of, open_model
from markovlm.errors import UserError
from markovlm.evaluation.answering import score_text
from markovlm.evaluation.store import Label
from markovlm.models.language import LanguageModel
from markovlm.rollouts.prompter import Prompter, build_prompter
from markovlm.runs.setup import Setup, resolve_config, task_with_extractors
from markovlm.runs.targets import Target
from markovlm.tasks.base import LETTERS, LIKELIHOOD, Task

CHARACTERS_A_TOKEN = 2.5  # at least, where the server does not count: a text that may not fit is left out


# Of most families: the server's model does not say which are its own.
_SPECIAL_TOKENS = """
<|im_start|> <|im_end|> <|endoftext|> <|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <start_of_turn> <end_of_turn>
<bos> <eos> <s> </s> [INST] [/INST] <think> </think> <|user|> <|assistant|> <|system|> <|end|> <|start|> <|message|> <|channel|> <|return|>
<｜User｜> <｜Assistant｜>
"""
_END = 0x110000  # the token that ends a turn, numbered behind the last character


class Characters:
    """A tokenizer whose tokens are characters, with the chat template of the server's model."""

    bos_token_id = pad_token_id = unk_token_id = None
    all_special_tokens = tuple(_SPECIAL_TOKENS.split())
    all_special_ids: Sequence[int] = ()
    added_tokens_decoder: Mapping[int, Any] = {}

    def __init__(self, template: Template | None):
        self.template = template
        self.chat_template = None if template is None else "the server's"
        self.eos_token_id = _END if template is not None and template.end else None  # it ends a turn

    def __len__(self) -> int:
        return _END + 1

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) for character in text]}

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        end = "" if self.template is None else self.template.end
        return "".join(end if i == _END else chr(i) for i in ids)

    def get_chat_template(self) -> str:
        return self.chat_template or ""

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **_: Any) -> str:
        assert self.template is not None
        said, *replies = (message["content"] for message in messages)
        return self.template.before + said + self.template.behind + "".join(replies)


@dataclass(slots=True)
class _Model:
    """What stands where a loaded model stands."""

    name: str
    tokenizer: Characters
    vocabulary: int = 0
    terminators: tuple[int, ...] = ()


@dataclass(slots=True)
class ServerReader(Reader):
    """Asks the server for every variant."""

    endpoint: Endpoint = field(default=cast(Endpoint, None))

    def _read(self, variants: Sequence[Variant]) -> list[Scored]:
        return self.endpoint.each(self._one, variants)

    def _one(self, variant: Variant) -> Scored:
        prompter, task = self.setup.prompter, self.setup.task
        special = prompter.style == "chat"
        before = written(prompter, prompter.reader_prompt(variant.example, variant.conditioning), variant.ids) + _header(prompter)
        logps = self.endpoint.end_logprobs(before, prompter.text(prompter.target_ids(variant.example)), special=special)
        mean = sum(logps) / len(logps)
        if not variant.write or not task.extractors:
            return Scored(mean)
        reply, whole = self.endpoint.greedy(before, task.max_answer_tokens, special=special)
        said = ended(reply, prompter.answer_stop)
        whole = whole or len(said) < len(reply)
        letters = self._letters(task, variant, before, special) if task.extractors[0] == LIKELIHOOD else {}
        found = score_text(task, variant.example, prompter.text(variant.ids), said, letters, ended=whole)
        return Scored(mean, said, found.extracted[task.extractors[0]], found.correct[task.extractors[0]], whole)

    def _letters(self, task: Task, variant: Variant, before: str, special: bool) -> dict[str, float]:
        return {
            letter: sum(self.endpoint.end_logprobs(before, f" {letter}", special=special))
            for letter in LETTERS[: len(variant.example.choices)]
        }


def written(prompter: Prompter, prompt: Sequence[int], cot: Sequence[int]) -> str:
    """Prompt and CoT as the server gets them: what looks like a special token in the CoT is plain text."""
    tokenizer = cast(Characters, prompter.tokenizer)
    return tokenizer.decode(prompt) + SPECIAL.sub(lambda match: f"{match[0][0]} {match[0][1:]}", tokenizer.decode(cot))


def ended(text: str, stops: Sequence[str]) -> str:
    """A greedy answer up to the first stop string after its first words, as answers decoded locally end.

    >>> ended(" 42\\nQuestion", ["\\n"])
    ' 42'
    """
    first = len(text) - len(text.lstrip())
    return text[: min((at for at in (text.find(stop, first) for stop in stops) if at >= 0), default=len(text))]


def _header(prompter: Prompter) -> str:
    return cast(Characters, prompter.tokenizer).decode(prompter.header_ids)


@dataclass(slots=True)
class OpenServer(OpenReader):
    """A server's model that is ready to read."""

    endpoint: Endpoint = field(default=cast(Endpoint, None))

    @property
    def context_tokens(self) -> int:
        """In characters: surely fits what has no more of them than the model has tokens; else by the least characters that a token has."""
        return int(self.endpoint.context_tokens * CHARACTERS_A_TOKEN) if self.endpoint.context_tokens < 1 << 30 else 1 << 40

    def text_scores(self, cots: Sequence[StudyCot]) -> list[tuple[float, int]]:
        prompter = self.setup.prompter
        special = prompter.style == "chat"

        def score(cot: StudyCot) -> tuple[float, int]:
            prompt = prompter.reader_prompt(cot.example, SIGHTED)
            before = written(prompter, prompt, ())
            logps = self.endpoint.end_logprobs(before, written(prompter, (), cot.ids), special=special)
            return sum(logps), len(logps)

        return self.endpoint.each(score, cots)

    def continuation_logprobs(self, parts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[float]:
        special = self.setup.prompter.style == "chat"
        decode = cast(Characters, self.setup.prompter.tokenizer).decode
        return self.endpoint.each(
            lambda part: sum(self.endpoint.end_logprobs(decode(part[0]), decode(part[1]), special=special)), parts
        )


def open_reader(
    name: str, target: Target, request: AuditRequest, counting: Counting | None, flag: str = "--reader"
) -> OpenReader:
    """Open a model on this machine (loaded) or on a server (looked up). Raises UserError in one line if that fails."""
    served = isinstance(target, ServerTarget)
    needs_tokens = [one for one in request.plan.perturbations if PERTURBATIONS[one].level == "token"]
    if served and "damage" in request.parts and needs_tokens:
        raise UserError(f"--perturbations {needs_tokens[0]}: perturbs tokens, but those of a server's reader are unknown here")
    try:
        return open_server(name, target, request, counting) if served else open_model(name, target, request, counting)
    except UserError as error:
        raise UserError(f"{flag} {name}: {error}") from error


def open_server(name: str, target: ServerTarget, request: AuditRequest, counting: Counting | None) -> OpenServer:
    """Find the server and its model. Raises UserError in one line if there is none."""
    examples = [cot.example for cot in request.material.cots]
    endpoint = Endpoint(target.address)
    endpoint.connect()
    style = target.config.prompt.style
    tokenizer = Characters(endpoint.template() if style in ("auto", "chat") else None)
    task = task_with_extractors(target.config)
    budget = budget_named(target)
    config = resolve_config(target.config, task, tokenizer, examples)
    header, end = target.config.prompt.answer_header, config.objective.answer_end
    prompter = build_prompter(task, tokenizer, style, budget, header, examples, answer_end=end)
    setup = Setup(config, task, cast(LanguageModel, _Model(endpoint.model, tokenizer)), prompter)
    check_prompts(setup, examples)
    how, weights = how_read(setup, request.seed), f"server {endpoint.url}"
    label = Label("base", 0, "audit", task.name, dict(config.task_options), None, True, endpoint.model, weights, how)
    identity = identity_of(label, task.extractors, budget)
    reader = ServerReader(setup, False, request.out / f"readings-{identity}.jsonl", name, counting, endpoint=endpoint)
    return OpenServer(name, endpoint.model, target, setup, reader, label, identity, endpoint=endpoint)
