"""The controls that a state is compared with: without these a number says nothing.

own             the state that the chain wrote nothing         an empty state last_tokens     the last tokens of what was read, as many
as a state may have other_text      the state of another text at the same step frozen          the state that the frozen model's own
chain came to past_in_sight   the chain's state, and everything that was read, visible: an upper bound (for a reader that can use it)
"""

from __future__ import annotations

from collections.abc import Sequence

from markovlm.chains.prompter import ChainPrompter, Ids
from markovlm.chains.walk import Walk

CONTROLS = ("nothing", "last_tokens", "other_text", "frozen", "past_in_sight")
OWN = "own"


def conditioning_of(control: str, trained: str) -> str:
    """Whether the past is visible when a state is read under this control."""
    return "non_markovian" if control == "past_in_sight" else trained


def controlled_state(
    control: str, prompter: ChainPrompter, walks: Sequence[Walk], frozen: Sequence[Walk] | None, number: int, t: int
) -> Ids:
    """The state that replaces the one chain `number` wrote at turn `t`."""
    walk = walks[number]
    if control in (OWN, "past_in_sight"):
        return walk.state(t + 1)
    if control == "nothing":
        return ()
    if control == "frozen":
        assert frozen is not None
        return frozen[number].state(t + 1)
    if control == "last_tokens":
        read = (
            " ".join(dict.fromkeys(walk.text.chunks[:t])) if prompter.chain.kind == "thinking" else " ".join(walk.text.chunks[:t])
        )
        return prompter.slot(read)[-prompter.cot_tokens :]
    if control == "other_text":
        other = _other(walks, number)
        return walks[other].state(min(t, walks[other].text.states) + 1)
    raise ValueError(f"unknown control {control!r}")


def _other(walks: Sequence[Walk], number: int) -> int:
    """The next chain that runs over another text."""
    others = ((number + k) % len(walks) for k in range(1, len(walks)))
    return next((i for i in others if walks[i].text.id != walks[number].text.id), number)
