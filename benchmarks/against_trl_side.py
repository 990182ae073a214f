"""TRL's side of `against_trl.py`: builds a GRPOTrainer from a JSON file, then makes one step for each line on standard input.

Run by the environment that has TRL; prints `{"trl": version}`, then `{"seconds": s, "cpu": s, "peak": bytes}` a step.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Turns(TrainerCallback):
    """A step begins when a line comes, and its time is said when it ends."""

    started = processor = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not sys.stdin.readline():
            sys.exit()
        self.started, self.processor = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        peak = (
            re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()) if Path("/proc/self/status").exists() else None
        )
        seconds = {"seconds": time.perf_counter() - self.started, "cpu": time.process_time() - self.processor}
        print(json.dumps({**seconds, "peak": int(peak[1]) * 1024 if peak else 0}), flush=True)


def variety(completions: list[str], **_: Any) -> list[float]:
    """A reward that costs nothing and differs within a group."""
    return [float(len(set(text))) for text in completions]


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    config = GRPOConfig(
        output_dir="trl",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=job["questions"] * job["group"],
        num_generations=job["group"],
        max_completion_length=job["tokens"],
        generation_kwargs={} if job["ended"] else {"min_new_tokens": job["tokens"]},
        temperature=1.0,
        top_k=0,
        beta=0.04,
        learning_rate=0.0,
        max_steps=job["steps"],
        shuffle_dataset=False,
        report_to=[],
        save_strategy="no",
        logging_steps=10**6,
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=variety,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": job["prompts"]}),
        processing_class=tokenizer,
        peft_config=LoraConfig(**job["lora"], task_type="CAUSAL_LM"),
        callbacks=[Turns()],
    )
    print(json.dumps({"trl": trl.__version__}), flush=True)
    trainer.train()


if __name__ == "__main__":
    main()
