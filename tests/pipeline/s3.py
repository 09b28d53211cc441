"""An S3 of this machine: moto's server on a free port of loopback, found by the variables that AWS's tools read."""

from collections.abc import Iterator
from itertools import count

import fsspec
import pytest
from moto.server import ThreadedMotoServer

_numbers = count()


@pytest.fixture(scope="module")
def s3_server() -> Iterator[None]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "a secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        # fsspec keeps its connections, and those of an earlier server lead nowhere.
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


@pytest.fixture
def bucket(s3_server: None) -> str:
    """The URL of an empty bucket."""
    name = f"bucket-{next(_numbers)}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"
