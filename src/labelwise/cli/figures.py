"""``labelwise figures``: what a page shows, as figures for print."""

from __future__ import annotations

from labelwise.cli import console
from labelwise.cli.commands.figures import FiguresCommand
from labelwise.cli.recognising import gather, warn_of_old_options
from labelwise.pages.figures.files import write_figures
from labelwise.pages.options import ReportOptions


def run_figures(args: FiguresCommand) -> None:
    """Run ``labelwise figures``."""
    settings = args.settings
    warn_of_old_options(args.model, args.device, is_trusted=args.trust_model)
    asked = ReportOptions(
        map_method=args.map_method,
        colour_by=args.colour_by,
        seed=args.seed,
    )
    with console.show_progress(enabled=not args.quiet) as progress:
        document = gather(args.target, asked, progress=progress)
    with console.show_status("drawing", enabled=not args.quiet):
        files = write_figures(document, args.out, settings)
    if not args.quiet:
        n_figures = sum(path.suffix.lstrip(".") == settings.formats[0] for path in files)
        n_tables = sum(path.suffix == ".csv" for path in files)
        words = f"figures: {n_figures}, tables: {n_tables}, listed in {files[0]}"
        console.output.print(words, markup=False, soft_wrap=True)
