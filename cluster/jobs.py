"""What a run has to know of `ray job`, which started its driver and will stop it."""

from collections.abc import Mapping

GRACE_SECONDS = 45
"""In which a run has stopped its actors and saved, and some."""
RAYS_GRACE_SECONDS = 3
"""Of Ray's own, between its SIGTERM to a job and its SIGKILL."""
_OF_A_JOB, _GRACE = "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_JOB_STOP_WAIT_TIME_S"


def short_grace(environment: Mapping[str, str]) -> str | None:
    """Return what a person should know of a job that would be killed while it saves; None when there is nothing."""
    given = environment.get(_GRACE, "")
    seconds = int(given) if given.isdigit() else RAYS_GRACE_SECONDS
    if _OF_A_JOB not in environment or seconds >= GRACE_SECONDS:
        return None
    return (
        f"`ray job stop` gives this job {seconds} s, and games in play take longer to save: submit it with "
        f"""--runtime-env-json '{{"env_vars": {{"{_GRACE}": "60"}}}}'"""
    )
