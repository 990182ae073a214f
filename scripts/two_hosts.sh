#!/bin/bash
# Train two steps over two hosts, under each strategy: hosts are network namespaces joined by a cable (veth), which needs root.
# The runs are compared with each other: the same rewards, the same adapter to rounding.
#
#     sudo scripts/two_hosts.sh [directory for the runs]
#
# On real hosts the two torchrun lines below are typed on one each, with HOST's address and each one's own.
set -euo pipefail

python=${PYTHON:-$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/python}
runs=$(mkdir -p "${1:-/tmp/two-hosts}" && cd "${1:-/tmp/two-hosts}" && pwd)
one=markovlm$$a two=markovlm$$b cable=mv$$ net=10.213.77

fail() { echo "two_hosts: $*" >&2; exit 2; }
[ "$(id -u)" = 0 ] || fail "network namespaces need root"
command -v ip > /dev/null || fail "needs the command ip (iproute2)"
[ ! -e "$runs/ddp" ] && [ ! -e "$runs/fsdp2" ] || fail "$runs has runs already; name another directory"
ip netns add "$one" || fail "no network namespace can be made here"
trap 'kill $(jobs -p) 2> /dev/null || true; ip netns del "$one"; ip netns del "$two" 2> /dev/null || true' EXIT
ip netns add "$two"
ip link add "${cable}a" netns "$one" type veth peer name "${cable}b" netns "$two" || fail "no veth pair can be made here"
for side in a b; do
  host=$([ $side = a ] && echo "$one" || echo "$two")
  ip -n "$host" addr add "$net.$([ $side = a ] && echo 1 || echo 2)/24" dev "$cable$side"
  ip -n "$host" link set "$cable$side" up
  ip -n "$host" link set lo up
done

on() { # on SIDE NUMBER IS_HOST STRATEGY: this host's share of the run
  ip netns exec "$([ "$1" = a ] && echo "$one" || echo "$two")" env GLOO_SOCKET_IFNAME="$cable$1" OMP_NUM_THREADS=1 \
    "$python" -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-id "$4" --rdzv-backend c10d \
    --rdzv-endpoint "$net.1:29400" --local-addr "$net.$2" --rdzv-conf "is_host=$3" \
    -m markovlm train --model embedded --task arithmetic --loading.device cpu --loading.dtype float32 \
    --rollouts.questions_per_step 3 --rollouts.group_size 4 --rollouts.max_cot_tokens 12 --training.steps 2 --training.eval_every 0 \
    --distributed.strategy "$4" --out "$runs/$4"
}

for strategy in ddp fsdp2; do
  echo "== $strategy"
  on b 2 0 "$strategy" > "$runs/$strategy.log" 2>&1 &
  on a 1 1 "$strategy" || fail "$strategy failed; the second host said: $(tail -3 "$runs/$strategy.log")"
  wait $! || fail "$strategy failed on the second host: $(tail -3 "$runs/$strategy.log")"
done

"$python" - "$runs" << 'PYTHON'
import json, sys
from pathlib import Path
from safetensors.torch import load_file

runs = [Path(sys.argv[1]) / name for name in ("ddp", "fsdp2")]
rewards = [[json.loads(line)["reward_mean"] for line in (run / "metrics.jsonl").open()] for run in runs]
adapters = [load_file(run / "checkpoints" / "step-000002" / "adapter_model.safetensors") for run in runs]
gap = max(float((adapters[0][name] - value).abs().max()) for name, value in adapters[1].items())
made = [json.loads((run / "environment.json").read_text()) for run in runs]
print("processes and strategy:", [(one["processes"], one["strategy"]) for one in made])
print(f"rewards {rewards}, largest gap of an adapter weight {gap:.2g}")
same = all(abs(a - b) < 1e-4 for a, b in zip(*rewards, strict=True)) and gap < 1e-6
print("the same" if same and [one["strategy"] for one in made] == ["ddp", "fsdp2"] else "NOT the same")
sys.exit(not same)
PYTHON
