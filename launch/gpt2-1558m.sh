#!/usr/bin/env bash
# GPT-2 1558M (XL) on 32 billion tokens, on 8 machines with 8 H100s each. Computed, not measured:
#   FLOPs  3.29e20  (10.28 billion a token, 32,000,442,368 tokens)
#   hours  3.6      (64 GPUs at 40% of 989 TFLOP/s)
#   cost   578 USD  (231 GPU hours at 2.50 USD)
# Start it on every machine, with the same HEAD: the name or address of one of them, which the others can reach.
# --out must be a folder that all of them see. torchrun starts all ranks again when one is lost.
#
#   HEAD=node0:29500 launch/gpt2-1558m.sh --data /shared/data/fineweb-edu --out /shared/runs/gpt2-1558m
set -euo pipefail

: "${HEAD:?set HEAD=HOST:PORT, the same on every machine}"
exec torchrun --nnodes "${NODES:-8}" --nproc-per-node "${GPUS:-8}" --max-restarts "${RESTARTS:-10}" \
    --rdzv-backend c10d --rdzv-id "${RUN_ID:-gpt2-1558m}" --rdzv-endpoint "$HEAD" \
    -m myna train gpt2-1558m --shard fsdp --timeout-s 300 --keep-last 3 --keep-every 5000 "$@"
