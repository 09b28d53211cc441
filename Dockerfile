# Every machine of a cluster on Kubernetes runs this image: docs/cluster.md.
#   docker build -t tamen .                            for CPUs
#   docker build -t tamen-cuda --build-arg TORCH_INDEX= .   for GPUs: with the CUDA build of torch, some 3 GB more
#   docker run --rm --shm-size=2g tamen tamen demo
FROM python:3.11-slim-bookworm

# make, as people use it here; wget, with which KubeRay asks whether a node is well.
RUN apt-get update \
 && apt-get install -y --no-install-recommends make wget \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 tamen \
 && install -d -o tamen -g tamen /home/tamen/tamen /runs

USER tamen
WORKDIR /home/tamen/tamen

# Packages change less often than code, and are a layer of their own. torch's index has the versions of the lock with
# +cpu behind them, which pip prefers.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY --chown=tamen:tamen requirements.lock ./
RUN python -m venv .venv \
 && .venv/bin/pip install -q --no-cache-dir --disable-pip-version-check \
      ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r requirements.lock

# Kernels are compiled for the processor of the machine that builds; on one of another kind they are compiled again.
COPY --chown=tamen:tamen . .
RUN .venv/bin/pip install -q --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation \
      --config-settings editable_mode=compat -e . \
 && .venv/bin/python -m cluster.warm \
 && touch .venv/ready

ENV PATH=/home/tamen/tamen/.venv/bin:$PATH \
    RAY_USAGE_STATS_ENABLED=0
CMD ["tamen", "doctor"]
