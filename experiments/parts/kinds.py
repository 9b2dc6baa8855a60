"""The command line of experiments that train a run for each of several kinds, and keep
rows of each.
"""

import argparse
from pathlib import Path


def main(doc: str, results: Path, column: str, kinds, rows_of, environment, table, figure, *layout):
    """--workdir=DIR trains what is not there and judges anew, of --only these kinds;
    without it table and picture from the rows that are kept.

    rows_of(kind, Path) -> its rows, whose `column` is the kind; environment(kind) ->
    the run's directory below DIR that tells where it ran; table(rows) and figure(rows,
    axes), of the size and panels of `layout` (`sweeps.evidence.render_figure`).
    """
    from aigc_jax.sweeps import evidence
    from aigc_jax.utils.errors import UserError, choose

    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workdir", help="where the runs are left; what is there already is not trained again"
    )
    parser.add_argument(
        "--only",
        default=",".join(kinds),
        help="which of them; the rows of the others stay (default: all)",
    )
    args = parser.parse_args()
    if args.workdir:
        try:
            chosen = [
                choose({kind: kind for kind in kinds}, name, "--only")
                for name in args.only.split(",")
            ]
            new = [row for kind in chosen for row in rows_of(kind, Path(args.workdir))]
        except UserError as e:
            parser.error(str(e))
        evidence.replace_rows(
            results, column, new, Path(args.workdir, environment(chosen[0]), "environment.json")
        )
    rows = evidence.read_rows(results)
    evidence.render_figure(results, table(rows), lambda axes: figure(rows, axes), *layout)
