"""Which token ends a reply: the last token of the gold answer where `objective.answer_end` is `scored`.

A likelihood reward that stops at the gold answer's last token is the likelihood of a *prefix* of the reply; nothing in it makes the
reader stop, so the reply decoded for accuracy continues (docs/likelihood-gap.md). What others score: TRL closes a completion with the
template's end of turn, or with `eos_token` where there is no template; LaTRO's code (arXiv 2411.04282) writes "The answer is 42." and
the tokenizer's end of turn; VeriFree's (arXiv 2505.21493) closes the answer's tag, at which its sampling stops. The research code
behind the paper scores no end.
"""

from __future__ import annotations

from typing import Any

from markovlm.errors import UserError
from markovlm.tasks.prompts import PromptStyle, chat_reply

LINE_BREAK = "\n"
_REPLY = "markovlm"  # stands for the assistant's words in a rendered template


def reply_end(tokenizer: Any, style: PromptStyle) -> int | None:
    """Id of the token that ends a reply; None if the tokenizer has none.

    compact: `<eos>`. chat: what the template closes the assistant's turn with (`<|im_end|>`, `<|eot_id|>`, `</s>`), the end token where
    it closes it with no special token. plain: a line break, with which base models end an answer, where that is one token; else the end
    token.
    """
    if style == "chat":
        return _end_of_turn(tokenizer)
    if style == "plain" and (line_break := _line_break(tokenizer)) is not None:
        return line_break
    return tokenizer.eos_token_id


def _line_break(tokenizer: Any) -> int | None:
    """As it follows a word: a SentencePiece tokenizer would put a space before one that stands alone."""

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    word, whole = encode("42"), encode("42" + LINE_BREAK)
    if word and whole[:-1] == word and tokenizer.decode(whole[-1:]) == LINE_BREAK:
        return whole[-1]
    return None


def _end_of_turn(tokenizer: Any) -> int | None:
    try:
        rendered = chat_reply(tokenizer, "question", _REPLY)
    except UserError:
        return tokenizer.eos_token_id
    rest = tokenizer(rendered[rendered.rfind(_REPLY) + len(_REPLY) :], add_special_tokens=False)["input_ids"]
    special = {*tokenizer.all_special_ids, *(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)}
    return next((token for token in rest if token in special), tokenizer.eos_token_id)
