"""A real Redis for tests: on loopback, with a password, started for a module and ended after it."""

from collections.abc import Iterator

import pytest

from cluster.bench.redis_server import RedisServer, serving


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with serving(tmp_path_factory.mktemp("redis")) as server:
        yield server
