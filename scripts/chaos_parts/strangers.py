"""A run directory that somebody sends, with everything in it that could hurt; secrets that must not be written down."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chaos_parts.harness import Case, Place, call, case
from chaos_parts.kills import audit_file, finished_run

SPRUNG = "import os\nos.system('touch sprung')\nopen('sprung', 'w').close()\n"


class _Trap:
    def __reduce__(self) -> Any:
        return (os.system, ("touch sprung",))


TEMPLATE = (
    "{{ cycler.__init__.__globals__.os.system('touch sprung') }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
)
TEMPLATES = (
    TEMPLATE,
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ self.__init__.__globals__['__builtins__']['open']('sprung', 'w') }}",
    "{% for i in range(999999999) %}x{% endfor %}",
    "{{ 'x' * 99999999999 }}",
    "{{ raise_exception('\x1b[2Jhostile') }}",
    "{{ lipsum.__globals__.os.popen('touch sprung').read() }}",
    "{% include '/etc/passwd' %}",
)


def _model(place: Place, folder: Path, template: str | None = None, code: bool = False) -> Path:
    shutil.copytree(place.model, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
        config["chat_template"] = template
    if code:
        (folder / "evil.py").write_text(SPRUNG + "class Evil: pass\n")
        config["auto_map"] = {"AutoTokenizer": ["evil.Evil", None]}
        model = json.loads((folder / "config.json").read_text())
        model["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
        model["model_type"] = "evil"
        (folder / "config.json").write_text(json.dumps(model))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def directories(place: Place) -> Iterator[Case]:
    """A stranger's run with plug-ins (by absolute and relative path), a model with its own code that its configuration
    allows, pickles for every weight, chat templates that break out or never end, links to /etc/passwd, and modules that would
    be imported from the working directory, under every command. Nothing of it runs, and nothing outside is read into a
    report."""
    finished = finished_run(place)
    kinds: dict[str, Any] = {"plug-ins": None, "code": None, "pickles": None, "links": None, "modules": None}
    kinds |= {f"template {number}": template for number, template in enumerate(TEMPLATES)}
    for kind, template in kinds.items():
        folder = place.new("stranger")
        run = folder / "run"
        shutil.copytree(finished, run)
        shutil.copy(audit_file(place.path), folder)
        config = (run / "config.yaml").read_text()
        latest = run / "checkpoints" / "step-000007"
        if kind == "plug-ins":
            (run / "evil.py").write_text(SPRUNG)
            config = config.replace("plugins: []", f"plugins: [evil.py, {run}/evil.py]")
        elif kind == "code":
            model = _model(place, folder / "model", code=True)
            config = config.replace(str(place.model), str(model)).replace("trust_remote_code: false", "trust_remote_code: true")
        elif kind == "pickles":
            for name in ("optimizer.pt", "adapter_model.bin", "pytorch_model.bin", "adapter_model.pt"):
                (latest / name).write_bytes(pickle.dumps(_Trap()))
            (latest / "adapter_model.safetensors").unlink()
            (latest / "manifest.json").unlink()
            shutil.copytree(place.model, folder / "model")
            (folder / "model" / "model.safetensors").unlink()
            (folder / "model" / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap()))
            config = config.replace(str(place.model), str(folder / "model"))
        elif kind == "links":
            for name in ("events.jsonl", "samples.jsonl"):
                (run / name).unlink()
                (run / name).symlink_to("/etc/passwd")
            (latest / "README.md").symlink_to("/etc/passwd")
            config = config.replace("path: null", "path: /etc/passwd")
        elif kind == "modules":
            for name in ("torch", "markovlm", "json", "sitecustomize", "usercustomize", "yaml", "evil"):
                (run / f"{name}.py").write_text(SPRUNG)
        else:
            model = _model(place, folder / "model", template)
            config = config.replace(str(place.model), str(model)).replace("style: plain", "style: chat")
        (run / "config.yaml").write_text(config)
        for words in place.some(
            (
                ["diagnose", "run"],
                ["report", "run", "-o", "out"],
                ["watch", "run", "--idle", "0"],
                ["eval", "run", "--limit", "2"],
                ["ask", "run", "1+2"],
                ["perturb", "run", "--limit", "2", "--only", "delete"],
                ["transfer", "run", "--readers", "run", "--limit", "2", "--checkpoints", "7"],
                ["explain", "run", "--limit", "2"],
                ["export", "run", "--to", "exported"],
                ["export", "run", "--to", "merged", "--merge"],
                ["audit", "cots.jsonl", "--reader", "run", "--only", "leak"],
                ["train", "--resume", "run", "--training.steps", "8"],
                ["train", "run/config.yaml", "--out", "again", "--training.steps", "1"],
                ["train", "run/config.yaml", "--dry-run"],
                ["eval", "run/checkpoints/step-000007", "--model", str(place.model), "--task", "arithmetic", "--limit", "2"],
                ["eval", "run", "--limit", "2", "--force"],
            )
        ):
            done = call(*words, cwd=folder, seconds=90)
            yield case(f"{kind}: {' '.join(words[:2])}", done)
            yield Case(
                f"{kind}: {' '.join(words[:2])}: nothing ran",
                "something of the stranger's ran" if list(folder.rglob("sprung")) else "",
            )
        leaked = [
            path
            for path in folder.rglob("*")
            if path.suffix in (".html", ".md", ".csv")
            and path.is_file()
            and not path.is_symlink()
            and b"root:x:0" in path.read_bytes()
        ]
        yield Case(f"{kind}: no report holds /etc/passwd", f"{leaked[0].name} holds it" if leaked else "")


SECRETS = {
    "HF_TOKEN": "hf_SECRETsecretSECRETsecret",
    "WANDB_API_KEY": "5ecre75ecre75ecre75ecre75ecre75ecre75ecr",
    "OPENAI_API_KEY": "sk-SECRETsecret",
    "AWS_SECRET_ACCESS_KEY": "AKSECRETsecretSECRET",
    "HUGGING_FACE_HUB_TOKEN": "hf_OTHERsecretOTHERsecret",
    "MLFLOW_TRACKING_PASSWORD": "SECRETmlflow",
}


def secrets(place: Place) -> Iterator[Case]:
    """Tokens and passwords in the environment, in a server's address or in a webhook's address appear in no file that a run,
    a report, a tracker, an export or a sweep writes, nor on the terminal."""
    from markovlm.config import dump_yaml
    from support import tiny

    folder = place.new("secrets")
    made = tiny.config(place.model, training__steps=2, training__eval_every=1, logging__trackers=["tensorboard"])
    (folder / "run.yaml").write_text(dump_yaml(made))
    (folder / "sweep.yaml").write_text(json.dumps({"base": "run.yaml", "seeds": 2}))
    address = "http://me:SECRETpassword@127.0.0.1:9"
    hook = "http://localhost:9/hook?token=SECRETtoken"
    values = [*SECRETS.values(), "SECRETpassword", "SECRETtoken"]
    env = {**SECRETS, "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "MARKOVLM_LOG": "debug"}
    for words in (
        ["train", "run.yaml", "--out", "run"],
        ["train", "run.yaml", "--out", "run2", "--rollouts.backend", "server", "--rollouts.server_url", address],
        ["eval", "run", "--limit", "2"],
        ["report", "run", "-o", "report"],
        ["export", "run", "--to", "exported"],
        ["export", "run", "--push", "me/x", "--base-model", "me/y", "--to", "pushed"],
        ["watch", "run", "--idle", "0", "--webhook", hook],
        ["sweep", "sweep.yaml", "--out", "sweep"],
        ["diagnose", "run", "--json"],
        ["train", "run.yaml", "--dry-run"],
    ):
        done = call(*words, cwd=folder, seconds=400, env=env)
        yield case(" ".join(words[:2]), done)
        said = [value for value in values if value in done.out + done.err]
        yield Case(f"{' '.join(words[:2])}: the terminal", f"says {said[0][:4]}…" if said and words[0] != "watch" else "")
    written = [
        (path, value) for path in folder.rglob("*") if path.is_file() for value in values if value.encode() in path.read_bytes()
    ]
    yield Case("all files", f"{written[0][0].relative_to(folder)} holds {written[0][1][:4]}…" if written else "")
