"""`tamen doctor --launch FILE`: would `ray up FILE` make the cluster that is meant?

Ray itself finds some of this out once a machine is there and costs money, and the rest never.
"""

import importlib.metadata
import json
import logging
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cluster.doctor.machine import Finding
from cluster.environment import CHECKOUT
from configs.words import did_you_mean, nearest

MARKET = "ray.io/market-type"
_OF_PROVIDER = {
    "aws": ("region",),
    "gcp": ("project_id", "region", "availability_zone"),
    "azure": ("subscription_id", "resource_group", "location"),
    "local": ("head_ip", "worker_ips"),
}
_OF_MACHINE = {"aws": "InstanceType", "gcp": "machineType", "azure": "vmSize"}
"""Keys of the provider, and of each type of machine, without which Ray fails when it has made a part of the cluster."""
_START = re.compile(r"\bray start((?:[^;&|\n])*)")
_OPTION = re.compile(r"(?<!\S)(--[\w-]+)(?:=| +(?=[^-\s]))?(\S*)")
"""An option of a command, and its value, which of a flag is nothing."""
_KINDS = {"object": "names with values", "array": "a list", "string": "text", "integer": "a whole number"}
_SECRET = re.compile(
    r"\bAKIA[0-9A-Z]{16}\b|PRIVATE KEY-----|\bgh[pousr]_\w{30,}|\bhf_\w{30,}|(?<!sha256:)\b[0-9a-f]{64}\b"
    r"|(?i:secret_access_key|secret_key|password|passwd|RAY_AUTH_TOKEN|api_key)[\"']?\s*[:=]\s*[^\s$#]"
)
"""Keys of AWS, private keys, tokens of GitHub, Hugging Face and Ray, and what is called a secret.

An image that is named by its digest is none.
"""


class _OnceEach(yaml.SafeLoader):
    """Refuses a key that stands twice in one section, of which YAML's own reader, and so Ray, takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        names = [key.value for key in keys]
        for number, key in enumerate(keys):
            if key.value in names[:number]:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def examine_launch_file(path: Path) -> Iterator[Finding]:
    """Yield what there is to say about a file for `ray up`; a file that Ray cannot use gets one finding."""
    try:
        text = path.read_text()
        written = _OnceEach(text).get_single_data()
        config = _as_ray_reads_it(written)
    except (OSError, UnicodeError) as error:
        yield Finding("file", f"{path}: {error}", "bad", "name a file as those in cluster/ray_up")
        return
    except (yaml.YAMLError, ValueError) as error:
        fix = "aws-spot.yaml and its like in cluster/ray_up are examples; kuberay.yaml is for `kubectl apply`"
        yield Finding("file", f"{path}: {_in_words(error)}", "bad", fix)
        return
    yield Finding("file", f"{path}: {config['cluster_name']} on {config['provider']['type']}", "ok")
    yield _left_open(text, config)
    yield _secrets(text)
    yield from _mounts(config)
    yield from _scripts(config)
    yield _starts(config)
    yield _authentication(config)
    yield _versions(config)
    if "max_workers" not in written and config["provider"]["type"] != "local":
        fix = "write max_workers, the most machines of all types together, which is what it may cost at most"
        yield Finding("limit", f"none: Ray takes {config['max_workers']}", "warn", fix)
    yield from _machines(config)


def _in_words(error: Exception) -> str:
    """Return what is wrong in one line; YAML tells the place in five."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        return f"line {error.problem_mark.line + 1}: {what}"
    return " ".join(str(error).split())


def _as_ray_reads_it(config: Any) -> dict[str, Any]:
    """Return the file with Ray's defaults. Raises ValueError with what Ray has against it."""
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    if not isinstance(config, dict) or not isinstance(config.get("provider"), dict):
        raise ValueError("it has no section `provider`")
    _is_of_its_kinds(config)
    _has_a_provider(config["provider"])
    for name, kind in (config.get("available_node_types") or {}).items():
        least, most = kind.get("min_workers", 0), kind.get("max_workers")
        if least < 0:
            raise ValueError(f"{name}: min_workers, {least}, is less than none")
        if most is not None and least > most:
            raise ValueError(f"{name}: min_workers, {least}, is more than max_workers, {most}")
    logging.getLogger("ray.autoscaler").setLevel(logging.WARNING)  # which tells of each default
    try:
        full = prepare_config(config)
        for kind in full["available_node_types"].values():
            kind.setdefault("resources", {})  # which are filled in from what AWS says
        validate_config(full)
    except jsonschema.ValidationError as error:
        raise ValueError(_placed(error)) from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"Ray cannot read it: {error!r}") from error
    _has_what_the_cloud_needs(full)
    if full["provider"]["type"] == "aws":
        _has_what_aws_knows(full)
    return full


def _is_of_its_kinds(config: dict[str, Any]) -> None:
    """Raise ValueError for a key that Ray does not know, or whose value is of another kind than it takes.

    Ray looks only once it has filled in what is missing, which such a value may break with any error.
    """
    import jsonschema
    import ray.autoscaler

    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())
    for error in jsonschema.Draft7Validator(schema).iter_errors(config):
        if error.validator in ("type", "additionalProperties"):
            raise ValueError(_placed(error))


def _has_a_provider(provider: dict[str, Any]) -> None:
    """Raise ValueError when Ray has no such provider, or a key is missing by which it asks the cloud."""
    from ray.autoscaler._private.providers import _NODE_PROVIDERS

    _has("provider", provider, "type")
    kind = provider["type"]
    if kind not in _NODE_PROVIDERS:
        raise ValueError(
            f"provider.type: Ray knows no {kind!r}; {did_you_mean(str(kind), list(_OF_PROVIDER))}"
        )
    for key in () if "coordinator_address" in provider else _OF_PROVIDER.get(kind, ()):
        _has("provider", provider, key)
    if kind in ("aws", "gcp"):
        region = str(provider["region"])
        for zone in str(provider.get("availability_zone") or region).split(","):
            if not zone.strip().startswith(region):
                raise ValueError(f"provider: {zone.strip()} is no zone of the region {region}")


def _has_what_the_cloud_needs(config: dict[str, Any]) -> None:
    """Raise ValueError when a type of machine lacks the key by which Ray asks the cloud; its schema knows none."""
    needed = _OF_MACHINE.get(config["provider"]["type"])
    if needed is not None:
        for name, kind in config["available_node_types"].items():
            _has(f"{name}.node_config", _machine_of(kind), needed)


def _has_what_aws_knows(config: dict[str, Any]) -> None:
    """Raise ValueError for what AWS's own library would refuse, once Ray has made a role and a security group."""
    try:
        from botocore.session import get_session
    except ImportError:
        return  # Ray says so itself, before it makes anything
    asked = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for name, kind in config["available_node_types"].items():
        node = {
            key: value for key, value in kind["node_config"].items() if key != "SubnetIds"
        }  # Ray's own word
        for wrong in _unknown(node, asked, f"{name}.node_config"):
            raise ValueError(wrong)


def _unknown(value: Any, shape: Any, where: str) -> Iterator[str]:
    """Yield the keys at and below `where` that what AWS takes there, `shape`, has not, with a question about each."""
    if isinstance(value, dict) and shape.type_name == "structure":
        for key, item in value.items():
            if key in shape.members:
                yield from _unknown(item, shape.members[key], f"{where}.{key}")
            else:
                yield f"{where}: AWS knows no {key}; {did_you_mean(key, list(shape.members))}"
    elif isinstance(value, list) and shape.type_name == "list":
        for number, item in enumerate(value):
            yield from _unknown(item, shape.member, f"{where}[{number}]")


def _has(where: str, section: dict[str, Any], key: str) -> None:
    if key not in section:
        near = nearest(key, list(section))
        meant = f"; is {near[0]} what was meant?" if near else ""
        raise ValueError(f"{where} has no {key}{meant}")


def _machine_of(kind: dict[str, Any]) -> dict[str, Any]:
    """Return where a type of machine says how it is made."""
    node = kind["node_config"]
    return node.get("azure_arm_parameters", node)


def _placed(error: Any) -> str:
    """Return where in the file something is of another form than Ray takes, and what it has against it.

    Keys that Ray does not know come with a question about each.
    """
    where, what = ".".join(map(str, error.absolute_path)) or "top", error.message
    if error.validator == "type" and isinstance(
        error.instance, dict | list
    ):  # of which the message is all that is in it
        kind = "names with values" if isinstance(error.instance, dict) else "a list"
        what = f"{kind}, where Ray takes {_KINDS.get(error.validator_value, error.validator_value)}"
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        unknown = [key for key in error.instance if key not in known]
        what += "".join(f"; {key}: {did_you_mean(key, known)}" for key in unknown if nearest(key, known))
    return f"{where}: {what}"


def _secrets(text: str) -> Finding:
    lines = [number for number, line in enumerate(text.splitlines(), 1) if _SECRET.search(line)]
    if lines:
        said = f"what looks like one stands in line {', '.join(map(str, lines))}"
        fix = "take it out, and make a new one if others have seen it: files are copied by file_mounts"
        return Finding("secrets", said, "bad", fix)
    return Finding("secrets", "none in the file", "ok")


def _left_open(text: str, config: dict[str, Any]) -> Finding:
    """Say what waits to be filled in, or was filled in with nothing, as by a command for an image that failed."""
    lines = [number for number, line in enumerate(text.splitlines(), 1) if "EDIT" in line.split("#")[0]]
    if lines:
        said = f"to be filled in: line {', '.join(map(str, lines))}"
        return Finding("left open", said, "bad", "the comment there, or docs/cluster.md, says with what")
    kinds = config["available_node_types"].items()
    if empty := [key for name, kind in kinds for key in _empty(kind["node_config"], name)]:
        fix = (
            "write what docs/cluster.md says; the command there that should have filled it in may have failed"
        )
        return Finding("left open", f"without a value: {', '.join(empty)}", "bad", fix)
    return Finding("left open", "nothing", "ok")


def _empty(value: Any, where: str) -> Iterator[str]:
    """Yield the keys below `where` that have no value, which clouds answer with riddles."""
    if value is None or value == "":
        yield where
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _empty(item, f"{where}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _empty(item, f"{where}[{number}]")


def _mounts(config: dict[str, Any]) -> Iterator[Finding]:
    """What is copied: when something is missing Ray says so after the head has been made."""
    mounts = {there: Path(here).expanduser() for there, here in config["file_mounts"].items()}
    for there, here in mounts.items():
        if there.endswith("/auth_token"):
            yield _token(here)
        elif not here.exists():
            yield Finding(
                "copied", f"{here} is not here", "bad", "type this in the folder from which it is copied"
            )
        elif (here / "requirements.lock").exists() or not here.is_dir():
            yield Finding("copied", f"{here.resolve()} to {there}", "ok")
        else:
            fix = "type this, and `ray up`, in the checkout's folder"
            yield Finding("copied", f"{here.resolve()} to {there}, which is no checkout", "bad", fix)
    if not any(there.endswith("/auth_token") for there in mounts):
        fix = "file_mounts: {~/.ray/auth_token: ~/.ray/auth_token}"
        yield Finding("token", "is not copied to the machines", "bad", fix)


def _scripts(config: dict[str, Any]) -> Iterator[Finding]:
    """What commands call in a folder that is copied has to be there: a machine that cannot be set up has been paid."""
    called = {
        word for line in _setup_commands(config) for word in line.split() if word.endswith((".sh", ".py"))
    }
    for there, here in config["file_mounts"].items():
        for word in sorted(word for word in called if word.startswith(f"{there}/")):
            script = Path(here).expanduser() / word.removeprefix(f"{there}/")
            if script.parent.is_dir() and not script.is_file():
                said = f"{word} is called, and {script} is not here"
                near = did_you_mean(script.name, sorted(each.name for each in script.parent.iterdir()))
                yield Finding("set up", said, "bad", near)


def _token(path: Path) -> Finding:
    if not path.is_file() or not path.stat().st_size:
        fix = f"ray get-auth-token --generate >/dev/null && chmod 600 {path}"
        return Finding("token", f"{path} is not there", "bad", fix)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return Finding("token", f"{path} has mode {mode:o}", "bad", f"others can read it: chmod 600 {path}")
    return Finding("token", f"{path}, readable by you alone", "ok")


def _starts(config: dict[str, Any]) -> Finding:
    """Whether Ray is started on all machines, by words that it knows, and the others look for the head where it is."""
    from ray.scripts.scripts import start

    known = sorted(name for option in start.params for name in (*option.opts, *option.secondary_opts))
    told: dict[str, dict[str, str]] = {}
    for section in ("head_start_ray_commands", "worker_start_ray_commands"):
        found = [_START.search(line) for line in config[section]]
        starts = [line[1] for line in found if line]
        if not starts:
            fix = "begin and end Ray there as the files of cluster/ray_up do"
            return Finding("start", f"{section} has no `ray start`", "bad", fix)
        told[section] = dict(_OPTION.findall(starts[-1]))
        if unknown := [option for option in told[section] if option not in known]:
            said = f"{section}: `ray start` has no {unknown[0]}"
            return Finding(
                "start", said, "bad", f"{did_you_mean(unknown[0], known)} `ray start --help` tells of all"
            )
    head, others = told.values()
    port, address = head.get("--port", "6379"), others.get("--address", "").strip("\"'")
    if not address.endswith(f":{port}") or ("$" in address and "RAY_HEAD_IP" not in address):
        said = f"workers look for the head at {address or 'no address'}, and it listens on port {port}"
        return Finding("start", said, "bad", f"ray start --address=$RAY_HEAD_IP:{port}")
    return Finding("start", f"the head on port {port}, where the others look for it", "ok")


def _authentication(config: dict[str, Any]) -> Finding:
    lines = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    starts = [line for line in lines if "ray start" in line]
    fix = "begin these lines with: export RAY_AUTH_MODE=token;"
    if any("RAY_AUTH_MODE=token" not in line.split("ray start")[0] for line in starts):
        return Finding("authentication", "Ray is started without the token", "bad", fix)
    if any("--dashboard-host=0.0.0.0" in line for line in starts):
        fix = "--dashboard-host=127.0.0.1; `ray dashboard FILE` leads there"
        return Finding("authentication", "the dashboard listens to everybody", "warn", fix)
    return Finding("authentication", "with the token", "ok")


def _versions(config: dict[str, Any]) -> Finding:
    """The launcher, the machines and the lock have one Ray."""
    installed = [word for line in _setup_commands(config) for word in _packages(line)]
    loose = sorted({word for word in installed if "==" not in word})
    here, lock = importlib.metadata.version("ray"), CHECKOUT / "requirements.lock"
    locked = re.search(r"^ray==(.+)$", lock.read_text(), re.MULTILINE)
    if loose:
        fix = "write a version behind each, as in name==1.2.3; setup_node.sh installs requirements.lock"
        return Finding("versions", f"any version is taken of {', '.join(loose)}", "bad", fix)
    if locked is None or locked[1] != here:
        return Finding(
            "versions", f"Ray {here} here, not what requirements.lock names", "bad", "run `make setup`"
        )
    return Finding("versions", f"Ray {here} here and there", "ok")


def _setup_commands(config: dict[str, Any]) -> list[str]:
    commands = [command for key in config if key.endswith("setup_commands") for command in config[key]]
    for kind in config["available_node_types"].values():
        commands += kind.get("worker_setup_commands", [])
    return commands


def _packages(command: str) -> list[str]:
    """Return what each `pip install` in a command names; an address counts as a package without a version."""
    named = []
    for found in re.finditer(r"\bpip3? install ((?:'[^']*'|\"[^\"]*\"|[^;&|\n])*)", command):
        words = re.findall(r"""'[^']*'|"[^"]*"|\S+""", found[1])
        if "-r" not in words:
            named += [word.strip("'\"") for word in words if not word.startswith("-")]
    return named


def _machines(config: dict[str, Any]) -> Iterator[Finding]:
    kinds = config["available_node_types"]
    head = config["head_node_type"]
    if _is_spot(kinds[head]):
        yield Finding(
            "head", "may be taken away, and the run with it", "bad", "only others may be spot machines"
        )
    else:
        yield Finding("head", "stays", "ok")
    if config["provider"]["type"] == "local":
        yield Finding("machines", f"{len(config['provider'].get('worker_ips', []))} beside the head", "ok")
        return
    for name, kind in kinds.items():
        if name == head:
            continue
        said = f"{kind['min_workers']} kept, at most {kind['max_workers']}"
        label, is_spot = kind.get("labels", {}).get(MARKET), _is_spot(kind)
        if label is not None and is_spot != (label == "spot"):
            asked = "spot machines" if is_spot else "machines at the full price, which stay"
            fix = "make the label and what node_config asks for agree, as in the files of cluster/ray_up"
            yield Finding(name, f"{said}; its label is {label}, and it asks for {asked}", "warn", fix)
        elif label is not None:
            yield Finding(name, f"{said}, {label}", "ok")
        else:
            yield Finding(
                name, f"{said}, without a label", "warn", f"labels: {{{MARKET}: spot}}, or on-demand"
            )


def _is_spot(kind: dict[str, Any]) -> bool:
    """Whether machines of a type may be taken away, in the words of AWS, Google Cloud and Azure."""
    node = _machine_of(kind)
    market, scheduling = (node.get(key) or {} for key in ("InstanceMarketOptions", "scheduling"))
    return (
        market.get("MarketType") == "spot"
        or scheduling.get("provisioningModel") == "SPOT"
        or scheduling.get("preemptible") is True
        or node.get("priority") == "Spot"
    )
