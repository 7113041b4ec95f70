"""``labelwise figures``: what a page shows, as figures for print."""

from __future__ import annotations

from labelwise.cli import console
from labelwise.cli.commands.figures import FiguresCommand
from labelwise.cli.recognising import gather
from labelwise.pages.figures.files import write_figures
from labelwise.selection.page.options import ReportOptions


def run_figures(args: FiguresCommand) -> None:
    """Run ``labelwise figures``."""
    settings = args.settings
    asked = ReportOptions(
        map_method=args.map_method,
        colour_by=args.colour_by,
        model=args.model.path,
        device=args.model.device,
        seed=args.seed,
        trust_model=args.model.trust,
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
