"""Make the notebooks from their scripts: ``python notebooks/build.py``; with ``--check`` only say which are stale."""

import argparse
import sys
from pathlib import Path

import jupytext
import nbformat

FOLDER = Path(__file__).parent
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebook(script: Path) -> str:
    """The notebook of a percent script, without outputs: the same text for the same script."""
    made = jupytext.reads(script.read_text(), fmt="py:percent")
    made.metadata = METADATA
    for number, cell in enumerate(made.cells):
        cell["id"] = f"cell-{number}"
        cell.metadata = {}
    return nbformat.writes(made, indent=1) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where a notebook is stale")
    check = parser.parse_args().check
    stale = []
    for script in sorted(FOLDER.glob("[0-9]*.py")):
        target, text = script.with_suffix(".ipynb"), notebook(script)
        if not target.exists() or target.read_text() != text:
            stale.append(target.name)
            if not check:
                target.write_text(text)
    print(f"{'stale' if check else 'written'}: {', '.join(stale) or 'none'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
