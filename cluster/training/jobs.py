"""What a run has to know of `ray job`, which started its driver and will stop it."""

import math
from collections.abc import Mapping

GRACE_SECONDS = 45
"""In which a run has stopped its actors and saved, and some."""
RAYS_GRACE_SECONDS = 3
"""Of Ray's own, between its SIGTERM to a job and its SIGKILL."""
_OF_A_JOB, _GRACE = "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_JOB_STOP_WAIT_TIME_S"


def short_grace(environment: Mapping[str, str], *, mirror_seconds: float = 0.0) -> str | None:
    """Return what a person should know of a job that would be killed while it saves; None when there is nothing.

    Args:
        environment: of the driver.
        mirror_seconds: that it may mirror what it saved after that.
    """
    given = environment.get(_GRACE, "")
    seconds = int(given) if given.isdigit() else RAYS_GRACE_SECONDS
    needed = GRACE_SECONDS + mirror_seconds
    if _OF_A_JOB not in environment or seconds >= needed:
        return None
    mirroring = ", and the mirror," if mirror_seconds else ""
    return (
        f"`ray job stop` gives this job {seconds} s, and games in play{mirroring} take longer to save: submit it with "
        f"""--runtime-env-json '{{"env_vars": {{"{_GRACE}": "{60 * math.ceil(needed / 60)}"}}}}'"""
    )
