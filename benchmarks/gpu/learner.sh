#!/usr/bin/env bash
# What 16 bits are worth to a learner's step on a GPU, and what four microbatches cost beside one: 13×13 hex, 6 blocks × 64 and
# 10 × 128 channels. At least 1.5 times the rows/s of fp32 are wanted, and memory within 5 %.
# Usage: benchmarks/gpu/learner.sh    prints JSON objects. Needs one CUDA GPU and `make setup` with a CUDA build of torch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

for network in "6 64" "10 128"; do
  # shellcheck disable=SC2086 # two arguments
  .venv/bin/python benchmarks/learner_step.py cuda $network
done
