"""The names of the presets: read from their folder, without what it takes to load one."""

from pathlib import Path

PRESETS_FOLDER = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Return the names that `configs.loading.load` knows; of one family the smaller first."""
    return sorted((path.stem for path in PRESETS_FOLDER.glob("*.yaml")), key=lambda name: (len(name), name))
