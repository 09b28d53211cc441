#!/usr/bin/env bash
# What a GPU solves of rivers beside one core with its lanes: iterations/s with pots of 100, 1,000 and 10,000 a side, and samples/s by
# the law of pots, with torch's own kernels and with compiled ones. The tests that need a GPU go first.
# Usage: benchmarks/gpu/rivers.sh [SECONDS]    prints one JSON object a way. Needs one CUDA GPU and `make setup` with a
# CUDA build of torch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=${1:-20}

.venv/bin/python -m pytest -q tests/poker/test_gpu.py >&2
for way in "" --fused; do
  # shellcheck disable=SC2086 # no argument, or one
  .venv/bin/python -m benchmarks.solve_gpu --device cuda --situations 4096 --seconds "$seconds" $way
done
