"""``labelwise report``: one page that shows what was chosen and why."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from labelwise.cli import console
from labelwise.cli.commands.report import ReportCommand
from labelwise.cli.recognising import gather, warn_of_old_options
from labelwise.errors import WriteError
from labelwise.pages.page import write_page

_PAGE = "report.html"


def run_report(args: ReportCommand) -> None:
    """Run ``labelwise report``."""
    warn_of_old_options(args.model, args.device, is_trusted=args.trust_model)
    page = _name_page(args.target) if args.out is None else args.out
    _check_page(page, args.target, force=args.force)
    with console.show_progress(enabled=not args.quiet) as progress:
        document = gather(args.target, args.page, progress=progress)
    write_page(page, document)
    if not args.quiet:
        console.output.print(f"page: {page}", markup=False, soft_wrap=True)
    if args.open_page:
        webbrowser.open(page.resolve().as_uri())


def _name_page(target: Path) -> Path:
    """Return where the page of a target goes unless it is said."""
    return target / _PAGE if target.is_dir() else target.with_suffix(".html")


def _check_page(page: Path, target: Path, *, force: bool) -> None:
    """Refuse to write over an input or over a file that is no page.

    Raises:
        WriteError: The page cannot or must not be written there.
    """
    if page.is_dir():
        raise WriteError(f"cannot write {page}: it is a directory; give --out a file")
    if page.exists() and page.resolve() == target.resolve():
        raise WriteError(f"{page} is the input; choose another --out")
    if page.exists() and page.suffix.lower() not in (".html", ".htm") and not force:
        raise WriteError(
            f"{page} exists and is no page; choose another --out, or replace it with --force"
        )
