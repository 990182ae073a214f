"""Train on questions of your own, watch it, evaluate with intervals, see which words are load-bearing.

    python examples/1_train_on_own_questions.py [OUT]

For a model of your own, set MODEL to a directory or a Hub id, and write the questions in words.
"""

import random
import sys

import markovlm

MODEL, STEPS = "embedded", 6
out = sys.argv[1] if len(sys.argv) > 1 else "runs/own-questions"

rng = random.Random(0)
sums = [[rng.randint(1, 99) for _ in range(rng.randint(3, 5))] for _ in range(400)]
questions = [{"question": "+".join(map(str, terms)), "answer": str(sum(terms))} for terms in sums]


def watch(row: dict) -> None:
    print(f"step {row['step']:3}  reward {row['reward_mean']:.2f}  right {row['answer_correct_fraction']:.2f}")


markovlm.train({"model": MODEL}, out, questions=questions, on_step=watch, training__steps=STEPS, training__checkpoint_every=STEPS)

done = markovlm.evaluate(out, baseline=True, limit=40)
low, high = done.ci95
print(f"accuracy from the CoT alone {done.accuracy:.2f} [{low:.2f}, {high:.2f}], n = {done.n}")

model = markovlm.load(out)
[thoughts] = model.sample(["17+4+79"], n=4, seed=1)
for thought, reading in zip(thoughts, model.read(thoughts, ["100"] * 4), strict=True):
    print(f"{thought.text!r} -> {reading.answer}  ln pi(100 | CoT) = {reading.logprob:.2f} a token")

for unit in markovlm.explain(out, "17+4+79", by="word")[0].units:
    print(f"{unit.text!r:8} {unit.drop:+.2f} nats")
