"""Models in memory: validates requests, runs forwards, swaps weights between batches, remembers evaluations."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, thread_time

import numpy as np
import torch

from configs.schema import InferenceConfig
from core.errors import EvaluationError
from core.messages import Arrays, ArraySpec, Reply
from inference_server.cache import EvaluationCache, distinct, hash_rows
from networks.build import Net, build_net, load_into
from networks.precision import resolve
from networks.weights import Weights
from networks.winograd import Forward, fastest_forward, renew
from networks.wire import WireForm

Fetch = Callable[[str], Weights]
"""Gives the newest weights of a model by name; raises UsageError for a name it does not know."""
_WIRE_FORMS: dict[torch.dtype, WireForm] = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}


@dataclass(slots=True)
class ReadyModel:
    """A model that can answer, and does from `ModelHost.install` on."""

    model: str
    version: int
    digest: str
    net: Net
    forward: Forward
    cache: EvaluationCache | None = None


class ModelHost:
    """Evaluates rows with named models; used by one thread, beside which one other may `prepare`.

    Args:
        config: batch and cache sizes.
        precision: of every forward; see networks.precision.
        device: torch device name.
        fetch: where a model comes from when it is first asked for.
    """

    def __init__(self, config: InferenceConfig, *, precision: str, device: str, fetch: Fetch) -> None:
        self._config = config
        self.precision = resolve(precision, device)
        self._fetch = fetch
        self._models: OrderedDict[str, ReadyModel] = OrderedDict()
        self._retired: dict[str, ReadyModel] = {}
        self.forward_seconds = 0.0
        self.forward_cpu_seconds = 0.0
        self.forward_rows = 0
        self.cached_rows = 0

    @property
    def wire_form(self) -> WireForm:
        """In which form weights may travel here without a loss."""
        return _WIRE_FORMS[self.precision.dtype]

    @property
    def on_cpu(self) -> bool:
        """Whether forwards take the processors that make weights ready."""
        return self.precision.device.type == "cpu"

    def load(self, weights: Weights) -> None:
        """Make `weights` the ones that answer for their model.

        Raises:
            DataError: when the digest does not match; the old weights then stay, as they do whatever else fails.
        """
        self.install(self.prepare(weights))

    def prepare(self, weights: Weights) -> ReadyModel:
        """Make `weights` ready to answer, on any one thread beside the one that serves; what answers now answers on.

        Raises:
            DataError: when the digest does not match.
        """
        weights.verify()
        model, held = weights.model, self._models.get(weights.model)
        # Memory that is touched for the first time costs more than what is written to it: the last but one is filled.
        retired = self._retired.pop(model, None)
        if retired is not None and retired.net.accepts(weights):
            load_into(retired.net, weights)
            renew(retired.forward)
            return ReadyModel(model, weights.version, weights.digest, retired.net, retired.forward)
        if held is not None and held.net.accepts(weights):
            net = copy.deepcopy(held.net)  # faster than a new one with its random start
            load_into(net, weights)
        else:
            net = self.precision.prepare(build_net(weights))
        return ReadyModel(model, weights.version, weights.digest, net, fastest_forward(net))

    def install(self, ready: ReadyModel) -> None:
        """Let a model answer, unless a newer version of it does already. Call it between two batches."""
        held = self._models.get(ready.model)
        if held is not None and held.version > ready.version:
            return
        ready.cache = self._cache_for(ready, held)
        self._models[ready.model] = ready
        self._models.move_to_end(ready.model)
        if held is not None:
            self._retired[ready.model] = held
        while len(self._models) > self._config.models_in_memory:
            gone, _ = self._models.popitem(last=False)
            self._retired.pop(gone, None)

    def version(self, model: str) -> int | None:
        """Return the version that answers for `model`, None when it is not in memory."""
        loaded = self._models.get(model)
        return loaded.version if loaded else None

    def bring(self, model: str) -> None:
        """Have `model` in memory. Raises whatever `fetch` does when it is not there yet and cannot be had."""
        self._model(model)

    def check(self, model: str, arrays: Arrays) -> None:
        """Raise EvaluationError when `arrays` are not what `model` takes: names, dtypes, shapes, equal B."""
        specs = {spec.name: spec for spec in self._model(model).net.spec.inputs}
        problem = _mismatch(specs, arrays)
        if problem is not None:
            raise EvaluationError(
                f"a request to model {model!r} does not fit",
                why=problem,
                fix="send the arrays that the game's `encode` gives for the game this model was trained on",
            )

    def evaluate(self, model: str, arrays: Arrays) -> Reply:
        """Return the evaluation of `arrays`; with a cache, equal positions computed once and known ones not at all.

        Raises:
            EvaluationError: for an unknown model or a forward that fails; the host stays usable.
        """
        loaded = self._model(model)
        if loaded.cache is None:
            return Reply(self._forward(model, loaded, arrays), loaded.version)
        hashes = hash_rows(arrays)
        first, inverse = distinct(hashes)
        unique = hashes[first]
        places = loaded.cache.lookup(unique)
        known = places >= 0
        unknown = np.flatnonzero(~known)
        fresh: Arrays = {}
        if len(unknown):
            fresh = self._forward(model, loaded, {k: v[first[unknown]] for k, v in arrays.items()})
        held = loaded.cache.read(places[known]) if known.any() else {}
        outputs = {}
        for name in fresh or held:
            example = fresh[name] if fresh else held[name]
            rows = np.empty((len(unique), *example.shape[1:]), example.dtype)
            if fresh:
                rows[unknown] = fresh[name]
            if held:
                rows[known] = held[name]
            outputs[name] = rows[inverse]
        if fresh:
            loaded.cache.insert(unique[unknown], fresh)
        self.cached_rows += len(inverse) - len(unknown)
        return Reply(outputs, loaded.version)

    def _model(self, model: str) -> ReadyModel:
        if model not in self._models:
            self.load(self._fetch(model))
        self._models.move_to_end(model)
        return self._models[model]

    def _cache_for(self, ready: ReadyModel, held: ReadyModel | None) -> EvaluationCache | None:
        """Return the cache of a model that takes the place of `held`, emptied unless the weights are the same."""
        if held is None or held.cache is None or held.net.network != ready.net.network:
            return EvaluationCache(self._config.cache_positions) if self._config.cache_positions else None
        if held.digest != ready.digest:
            held.cache.clear()
        return held.cache

    def _forward(self, model: str, loaded: ReadyModel, arrays: Arrays) -> dict[str, np.ndarray]:
        began, began_cpu = perf_counter(), thread_time()
        rows = len(next(iter(arrays.values())))
        try:
            slices = [
                self._forward_slice(loaded, arrays, start)
                for start in range(0, rows, self._config.max_batch_rows)
            ]
        except RuntimeError as error:  # torch's own errors, out of memory among them
            raise EvaluationError(
                f"model {model!r} failed on a batch of {rows} rows",
                why=str(error).splitlines()[0],
                fix="lower inference.max_batch_rows if memory is short; the server goes on",
            ) from error
        self.forward_seconds += perf_counter() - began
        self.forward_cpu_seconds += thread_time() - began_cpu
        self.forward_rows += rows
        return (
            slices[0] if len(slices) == 1 else {k: np.concatenate([s[k] for s in slices]) for k in slices[0]}
        )

    def _forward_slice(self, loaded: ReadyModel, arrays: Arrays, start: int) -> dict[str, np.ndarray]:
        stop = start + self._config.max_batch_rows
        with torch.inference_mode():
            # The copy makes arrays that came read-only out of a message writable, as torch wants them.
            device = self.precision.device
            outputs = loaded.forward(
                {k: torch.from_numpy(v[start:stop].copy()).to(device) for k, v in arrays.items()}
            )
        dtypes = {spec.name: np.dtype(spec.dtype) for spec in loaded.net.spec.outputs}
        return {k: v.float().cpu().numpy().astype(dtypes[k], copy=False) for k, v in outputs.items()}


def _mismatch(specs: dict[str, ArraySpec], arrays: Arrays) -> str | None:
    if specs.keys() != arrays.keys():
        return f"it holds the arrays {sorted(arrays)}, the model takes {sorted(specs)}"
    problem = next(
        (p for name, spec in specs.items() if (p := spec.mismatch(arrays[name])) is not None), None
    )
    if problem is not None:
        return problem
    if len({len(array) for array in arrays.values()}) != 1 or not len(next(iter(arrays.values()))):
        return f"its arrays have {[len(array) for array in arrays.values()]} rows; all need the same number, at least 1"
    return None
