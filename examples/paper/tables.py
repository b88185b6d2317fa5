"""The tables: what was measured, beside what the paper reports.

usage: python -m examples.paper.tables RUNS [MODELS ...]
           merge what evaluate.py, dense.py and train.py wrote into examples/paper/results
       python -m examples.paper.tables
           write docs/results.md and its figures from there
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from evsnn.output.console import print_message
from examples.paper.document import document
from examples.paper.figures import draw
from examples.paper.records import replace_file
from examples.paper.results import FOLDER, load_all, merge

__all__ = ["main"]

DOCS = Path(__file__).parents[2] / "docs"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.paper.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders",
        type=Path,
        nargs="*",
        metavar="RUNS",
        help="folders of records; without any, the page is written",
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=FOLDER,
        help="where the merged JSON lies (default: examples/paper/results)",
    )
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the page goes (default: docs)")
    arguments = parser.parse_args(argv)
    if arguments.folders:
        read = merge(arguments.folders, arguments.results)
        if not read:
            sys.exit(
                f"{', '.join(map(str, arguments.folders))}: got no record of any system, expected"
                " <system>_<method>_<by>.json; evaluate.py and dense.py write them"
            )
        print_message(f"{len(read)} records merged into {arguments.results}")
        return
    systems = load_all(arguments.results)
    if not systems:
        sys.exit(
            f"{arguments.results}: there are no results; python -m examples.paper.tables RUNS puts them there"
        )
    figures = draw(systems, arguments.docs / "figures")
    replace_file(arguments.docs / "results.md", document(systems, figures, arguments.docs).encode())


if __name__ == "__main__":
    main()
