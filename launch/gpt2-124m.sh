#!/usr/bin/env bash
# GPT-2 124M on 10 billion tokens, on one machine with 8 H100s. Computed, not measured:
#   FLOPs  8.55e18  (855 million a token, 9,999,745,024 tokens)
#   hours  0.75     (8 GPUs at 40% of 989 TFLOP/s)
#   cost   15 USD   (6.0 GPU hours at 2.50 USD)
# Run it once more after any interruption: it goes on from the newest sound checkpoint.
#
#   myna prepare fineweb-edu --out data/fineweb-edu
#   launch/gpt2-124m.sh --data data/fineweb-edu --out runs/gpt2-124m [any flag of myna train]
set -euo pipefail

exec torchrun --standalone --nproc-per-node "${GPUS:-8}" --max-restarts "${RESTARTS:-10}" \
    -m myna train gpt2-124m --timeout-s 300 --keep-last 3 --keep-every 5000 "$@"
