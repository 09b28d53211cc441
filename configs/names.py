"""The names of the presets: read from their folder, without what it takes to load one."""

from pathlib import Path

PRESETS_FOLDER = Path(__file__).parent / "presets"
PIPELINES_FOLDER = Path(__file__).parent / "pipelines"
DATAGEN_FOLDER = Path(__file__).parent / "datagen"
VALUES_FOLDER = Path(__file__).parent / "values"


def preset_names(folder: Path = PRESETS_FOLDER) -> list[str]:
    """Return the names of the presets in `folder`; of one family the smaller first."""
    return sorted((path.stem for path in folder.glob("*.yaml")), key=lambda name: (len(name), name))
