"""A verdict on metric rows that are already in memory: your own loop's, a tracker's, a data frame's.

python examples/4_diagnose_rows.py
"""

import random

import markovlm

rng = random.Random(0)
rows = []
for step in range(1, 301):  # a run that learns, and breaks at step 220
    level = -3.0 + 2.0 * min(step, 150) / 150 - (0 if step < 220 else 6.0)
    rows.append({"step": step, "reward_mean": level + rng.gauss(0, 0.2), "kl": 0.02 * step**0.5, "grad_norm": 1.0})

[found] = markovlm.diagnose(rows)
print(found.verdict, "since step", found.onset_step)
print(found.why)
for advice in found.advice:
    print("-", advice)
