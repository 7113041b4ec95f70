"""``labelwise figures``: what a page shows, as figures for print."""

from __future__ import annotations

from labelwise.cli import console
from labelwise.cli.commands.figures import FiguresCommand
from labelwise.cli.recognising import gather, warn_of_old_options
from labelwise.pages.figures.files import write_figures


def run_figures(args: FiguresCommand) -> None:
    """Run ``labelwise figures``."""
    warn_of_old_options(args.model, args.device, is_trusted=args.trust_model)
    with console.show_progress(enabled=not args.quiet) as progress:
        document = gather(args.target, args.page, progress=progress)
    with console.show_status("drawing", enabled=not args.quiet):
        files = write_figures(document, args.out, args.settings)
    if not args.quiet:
        n_figures = sum(path.suffix.lstrip(".") == args.settings.formats[0] for path in files)
        n_tables = sum(path.suffix == ".csv" for path in files)
        words = f"figures: {n_figures}, tables: {n_tables}, listed in {files[0]}"
        console.output.print(words, markup=False, soft_wrap=True)
