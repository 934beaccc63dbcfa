"""``python -m sparse_bench.data``: list, download and verify the corpora."""

import argparse
import sys
from collections.abc import Sequence

from sparse_bench.cache import CACHE_VARIABLE, CORPORA_VARIABLE, corpora_folder
from sparse_bench.commands import exit_status
from sparse_bench.data.corpora import Corpus, corpora
from sparse_bench.data.download import MIRROR_VARIABLE, chosen_mirror, fetch, present, problems
from sparse_bench.errors import unknown_choice


def _corpus(name: str) -> Corpus:
    if name not in corpora():
        raise argparse.ArgumentTypeError(unknown_choice("corpus", name, corpora()))
    return corpora()[name]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sparse_bench.data",
        description="Corpora: list, download, verify.",
        epilog=f"Corpora are stored in ~/.cache/sparse_bench, ${CORPORA_VARIABLE} or ${CACHE_VARIABLE}.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="list all corpora: files, size, licence, and whether they are present")
    listing.set_defaults(run=_list)

    download = commands.add_parser("download", help="download missing corpora, and check present ones")
    download.add_argument("names", nargs="*", type=_corpus, metavar="NAME", help="a corpus")
    download.add_argument("--all", action="store_true", help="all corpora")
    download.add_argument(
        "--mirror",
        metavar="PLACE",
        help="folder or http(s) address with CORPUS/FILE or CORPUS/FILE.gz, used instead of the upstream hosts "
        f"(default: ${MIRROR_VARIABLE})",
    )
    # argparse cannot say "either names or --all", so the subcommand's own parser reports it.
    download.set_defaults(run=_download, usage_error=download.error)

    verify = commands.add_parser("verify", help="compare present corpora with their checksums")
    verify.add_argument("names", nargs="*", type=_corpus, metavar="NAME", help="a corpus (default: all present ones)")
    verify.set_defaults(run=_verify)

    path = commands.add_parser("path", help="print the folder of a corpus; fails if it is incomplete")
    path.add_argument("name", type=_corpus, metavar="NAME", help="a corpus")
    path.set_defaults(run=_path)
    return parser


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _state(corpus: Corpus) -> str:
    found = len(present(corpus, corpora_folder()))
    if found == len(corpus.files):
        return "present"
    return f"{found} of {len(corpus.files)} present" if found else "absent"


def _list(given: argparse.Namespace) -> int:
    rows = [("corpus", "files", "size", "here", "licence")]
    rows += [(c.name, str(len(c.files)), _megabytes(c.size), _state(c), c.licence) for c in corpora().values()]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for name, files, size, state, licence in rows:
        print(f"{name:<{widths[0]}}  {files:>{widths[1]}}  {size:>{widths[2]}}  {state:<{widths[3]}}  {licence}")
    print(f"\nin {corpora_folder()}")
    return 0


def _download(given: argparse.Namespace) -> int:
    if given.all == bool(given.names):
        given.usage_error("give the names of corpora, or --all")
    for corpus in given.names or corpora().values():
        fetch(corpus, corpora_folder(), chosen_mirror(given.mirror))
        print(f"{corpus.name}: {_megabytes(corpus.size)} in {corpora_folder() / corpus.name}. {corpus.notice}")
    return 0


def _verify(given: argparse.Namespace) -> int:
    checked = given.names or [
        corpus for corpus in corpora().values() if any(file.path(corpora_folder()).exists() for file in corpus.files)
    ]
    if not checked:
        print(f"No corpus is in {corpora_folder()}, so there is nothing to verify.", file=sys.stderr)
        return 1
    failed = False
    for corpus in checked:
        wrong = problems(corpus, corpora_folder())
        print(f"{corpus.name}: {len(corpus.files) - len(wrong)} of {len(corpus.files)} files are correct")
        for file, problem in wrong.items():
            print(f"{corpus.name}/{file}: {problem}", file=sys.stderr)
        if wrong:
            print(f"To get it: python -m sparse_bench.data download {corpus.name}", file=sys.stderr)
            failed = True
    return int(failed)


def _path(given: argparse.Namespace) -> int:
    corpus = given.name
    if len(present(corpus, corpora_folder())) < len(corpus.files):
        folder = corpora_folder() / corpus.name
        print(f"Corpus '{corpus.name}' is incomplete in {folder}.", file=sys.stderr)
        print(f"To get it: python -m sparse_bench.data download {corpus.name}", file=sys.stderr)
        return 1
    print(corpora_folder() / corpus.name)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        The exit code: 0; 1 if a corpus is not available, is absent, or does not match its checksums; 130 after an
        interruption.

    Raises:
        SystemExit: the arguments are wrong (code 2).
    """
    given = _parser().parse_args(arguments)
    try:
        return exit_status(lambda: given.run(given))
    except KeyboardInterrupt:
        print("interrupted; run the same command to continue", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
