"""The reference daemon as a jar that `java -jar` starts: compiled once, and again only when its source is another.

java -jar $(python -m engines.reference.compile) daemon -p 17171
"""

import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from core.errors import UsageError
from core.files import digest, write_atomic

SOURCE = Path(__file__).with_name("TamenCards.java")
MAIN_CLASS = SOURCE.stem
RELEASE = 17
"""The oldest Java that runs it."""
COMPILE_SECONDS = 120
_CACHE = Path(__file__).resolve().parents[2] / ".cache" / "engines"


def compiled(cache: Path = _CACHE, *, source: Path = SOURCE) -> Path:
    """Return the jar of the daemon, made in `cache` if it is not there. Any number of processes may ask at once.

    Raises:
        UsageError: when there is no JDK, one that is too old, or an error in the source.
    """
    jar = cache / f"{source.stem}-{digest(source.read_bytes() + bytes([RELEASE]))}.jar"
    if not jar.exists():
        with tempfile.TemporaryDirectory() as folder:
            classes, packed = Path(folder, "classes"), Path(folder, "packed.jar")
            _compile(source, classes)
            _pack(classes, packed, main_class=source.stem)
            write_atomic(jar, packed.read_bytes())
    return jar


def found_compiler() -> str:
    """Return the path of javac: of JAVA_HOME, or else the first on the PATH. Raises UsageError when there is none."""
    home = os.environ.get("JAVA_HOME")
    compiler = shutil.which("javac", path=str(Path(home, "bin"))) if home else None
    compiler = compiler or shutil.which("javac")
    if compiler is None:
        raise UsageError(
            "the reference daemon cannot be compiled",
            why="no javac was found, neither under JAVA_HOME nor on the PATH; a JRE alone has none",
            fix=f"install a JDK of version {RELEASE} or newer: apt-get install default-jdk-headless",
        )
    return compiler


def _compile(source: Path, classes: Path) -> None:
    command = [
        found_compiler(),
        "--release",
        str(RELEASE),
        "-encoding",
        "UTF-8",
        "-d",
        str(classes),
        str(source),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMPILE_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(source, str(error)) from error
    if done.returncode != 0:
        raise _failed(source, (done.stderr or done.stdout).strip())


def _failed(source: Path, output: str) -> UsageError:
    first = output.splitlines()[0] if output else "javac said nothing"
    is_old = "release" in first and str(RELEASE) in first
    fix = f"install a JDK of version {RELEASE} or newer: apt-get install default-jdk-headless"
    return UsageError(
        f"{source.name} cannot be compiled", why=first[:200], fix=fix if is_old else f"mend {source}"
    )


def _pack(classes: Path, jar: Path, *, main_class: str) -> None:
    with zipfile.ZipFile(jar, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/MANIFEST.MF", f"Manifest-Version: 1.0\r\nMain-Class: {main_class}\r\n\r\n")
        for path in sorted(classes.rglob("*.class")):
            archive.write(path, path.relative_to(classes).as_posix())


if __name__ == "__main__":
    print(compiled())
