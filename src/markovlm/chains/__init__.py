"""Chains of states: a text is read in chunks, and of its past only a short state in text is kept (docs/chains.md).

o_1 … o_T           chunks of a text (kind=thinking: the question, again and again)
s_1                 given, mostly empty;        s_{t+1} ~ u_theta(. | o_t, s_t)
r_t                 ln pi_theta(what comes next | s_{t+1}), where what comes next is o_{t+1}, answers, or both
J = E sum_t gamma^(t-1) r_t
"""
