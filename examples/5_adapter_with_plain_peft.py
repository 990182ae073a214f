"""The adapter of a run in plain PEFT: you can use it without markovlm.

python examples/5_adapter_with_plain_peft.py [RUN]
"""

import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/plain-peft")
if not run.exists():  # make one
    import markovlm

    markovlm.train({"model": "embedded"}, run, training__steps=3, training__eval_every=0)

from markovlm.models.registry import resolve  # noqa: E402  (the path of the bundled model; a Hub id is used as it is)

base = resolve("embedded")
tokenizer = AutoTokenizer.from_pretrained(base)
model = PeftModel.from_pretrained(
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
    max(run.glob("checkpoints/step-*")),
    autocast_adapter_dtype=True,
)
prompt = tokenizer("<bos><|q|>17+4+79<|think|>", return_tensors="pt", add_special_tokens=False)
with torch.no_grad():
    written = model.generate(**prompt, max_new_tokens=48, do_sample=False)
print(tokenizer.decode(written[0][prompt["input_ids"].shape[1] :]))
