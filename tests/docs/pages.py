"""The pages of the documentation, as text."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PATHS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "benchmarks/README.md", "data/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def name(path):
    return str(path.relative_to(ROOT))


PAGES = {name(path): path.read_text(encoding="utf-8") for path in PATHS}
README = PAGES["README.md"]
RESULTS = PAGES["docs/results.md"]
MEMORY = PAGES["docs/memory.md"]
OWN_MODEL = PAGES["docs/own_model.md"]
