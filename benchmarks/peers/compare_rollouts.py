"""tamen beside its peers on an environment of classic control: steps a second, and how soon it is solved.

    .venv/bin/python -m benchmarks.peers.compare_rollouts --environments PEERS [--seeds 5] [--write FILE.md]

Run it from the checkout, in tamen's own environment. For each seed all sides take turns, each until the last 100
episodes of training reach the mean return at which the environment's authors call it solved, or the time is over. All
have two nets of 64 × 64 tanh units; those that are PPO take minibatches of 256 and ten epochs. Clocks start when all of
a side's processes are there. Figures are medians over the seeds.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.comparison import describe_machine
from benchmarks.peers.environments import make_environments
from benchmarks.peers.measuring import ROOT, say

OURS = "tamen"
PEERS = ["sb3", "rllib"]
FIGURES = ("env_steps_per_s", "solved_s", "solved_env_steps")


@dataclass(frozen=True, slots=True)
class Side:
    """One of those compared: `command` prints a JSON object on its last line; `--seed N` is appended."""

    name: str
    command: tuple[str, ...]


def sides(pythons: dict[str, str | None], *, env: str, seconds: float) -> list[Side]:
    """Return those that can take part; a peer needs its environment."""
    here = Path(__file__).parent
    shared = ("--env", env, "--seconds", f"{seconds:g}")
    ours = (sys.executable, "-m", "cluster.main", "bench", "rollout", *shared, "--seeds", "1", "--json")
    found = [Side(OURS, ours), Side("tamen, one process", (*ours, "--engine", "local"))]
    if pythons.get("sb3"):
        script = (str(pythons["sb3"]), str(here / "sb3_ppo.py"), *shared)
        found += [Side(f"Stable-Baselines3, {n} environments", (*script, "--envs", str(n))) for n in (8, 64)]
    if pythons.get("rllib"):
        script = (str(pythons["rllib"]), str(here / "rllib_appo.py"), *shared)
        found.append(Side("RLlib APPO", script))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environments", help="folder of the peers' environments, made when missing")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=90.0, help="after which a run is given up")
    parser.add_argument("--write", type=Path, metavar="FILE.md")
    given = parser.parse_args()
    pythons: dict[str, str | None] = {}
    if given.environments:
        pythons = make_environments(Path(given.environments), given.peers)
    taking_part = sides(pythons, env=given.env, seconds=given.seconds)
    said: dict[str, list[dict[str, Any]]] = {side.name: [] for side in taking_part}
    for seed in range(given.seeds):
        for side in taking_part:
            said[side.name].append(_run(side, seed, seconds=given.seconds))
            say(f"seed {seed}: {side.name}: {_in_words(said[side.name][-1])}")
    page = to_markdown(given.env, taking_part, said)
    if given.write:
        given.write.write_text(page)
    print(page)


def to_markdown(env: str, taking_part: Sequence[Side], said: dict[str, list[dict[str, Any]]]) -> str:
    """Return a page that can stand by itself."""
    rows = [f"| {side.name} | {' | '.join(_cells(said[side.name], said[OURS]))} |" for side in taking_part]
    commands = "\n".join(" ".join(side.command).replace(f"{ROOT}/", "") for side in taking_part)
    return f"""# {env} beside peers

{describe_machine()}.
Medians (lowest to highest) over {len(said[OURS])} seeds for which all sides took turns. Solved: the mean return of
the last 100 episodes of training has reached {said[OURS][0]["threshold"]}. Steps a second are those of the solving run.
{" ".join(dict.fromkeys(one["peer"] for runs in said.values() for one in runs if "peer" in one))}

| side | steps/s | tamen makes | solved after | steps until then | solved |
| :-- | --: | --: | --: | --: | --: |
{chr(10).join(rows)}

The commands, each with a `--seed`:

```
{commands}
```

```
{json.dumps(said)}
```
"""


def _cells(runs: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]]) -> list[str]:
    solved = [run for run in runs if run["solved_s"] is not None]
    ratios = [mine["env_steps_per_s"] / run["env_steps_per_s"] for mine, run in zip(ours, runs, strict=True)]
    return [
        _spread([run["env_steps_per_s"] for run in runs], "{:,.0f}"),
        "" if runs is ours else _spread(ratios, "{:.2f} ×"),
        _spread([run["solved_s"] for run in solved], "{:.1f} s"),
        _spread([run["solved_env_steps"] for run in solved], "{:,.0f}"),
        f"{len(solved)} of {len(runs)}",
    ]


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "–"
    middle, low, high = (form.format(f(values)) for f in (statistics.median, min, max))
    return f"{middle} ({low} to {high})"


def _run(side: Side, seed: int, *, seconds: float) -> dict[str, Any]:
    command = [*side.command, "--seed", str(seed)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=seconds + 300.0, cwd=ROOT
    )
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return {name: value for name, value in result.items() if name != "config"}


def _in_words(run: dict[str, Any]) -> str:
    end = f"solved after {run['solved_s']:.1f} s" if run["solved_s"] is not None else "not solved"
    return f"{run['env_steps_per_s']:,.0f} steps/s, {end}"


if __name__ == "__main__":
    main()
