#!/usr/bin/env bash
# What a GPU serves on 13×13 hex, 6 blocks × 64 channels: raw forward, clients that only ask, self-play with Gumbel search
# and, five times as long that games end, with minimax of widths 13 and 8.
# Usage: benchmarks/gpu/hex13.sh [SECONDS]    prints one JSON object a line. Needs one CUDA GPU and `make setup` with a
# CUDA build of torch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=${1:-20}
tamen=.venv/bin/tamen

$tamen doctor
$tamen bench inference --game hex13 --blocks 6 --channels 64 --seconds "$seconds" --rounds 3 --json \
  --set inference.max_batch_rows=8192 --set actors.count=6 --set actors.games_per_group=1024 --set actors.groups_per_actor=2
$tamen bench selfplay --game hex13 --blocks 6 --channels 64 --simulations 32 --seconds 60 --rounds 3 --json \
  --set inference.max_batch_rows=8192 --set actors.count=12 --set actors.games_per_group=512 --set actors.groups_per_actor=3
$tamen bench selfplay --game hex13 --blocks 6 --channels 64 --simulations 118 --seconds "$((5 * seconds))" --rounds 3 --json \
  --set search.algorithm=minimax --set search.minimax_widths=[13,8] \
  --set inference.max_batch_rows=8192 --set actors.count=12 --set actors.games_per_group=64 --set actors.groups_per_actor=3
$tamen bench selfplay --game connect_four --blocks 4 --channels 64 --simulations 32 --seconds 60 --rounds 3 --json \
  --set inference.max_batch_rows=8192 --set actors.count=12 --set actors.games_per_group=512 --set actors.groups_per_actor=3
