"""``labelwise convert``: write a model to a file of another kind."""

from __future__ import annotations

from labelwise.cli import console
from labelwise.cli.commands.convert import ConvertCommand
from labelwise.errors import WriteError
from labelwise.finetuning.export import require_file_name, save_potential
from labelwise.potentials import load_potential


def run_convert(args: ConvertCommand) -> None:
    """Run ``labelwise convert``.

    The weights are written in their own precision; what was written is read again, and must be
    the same model.
    """
    if args.out.exists() and not args.force:
        raise WriteError(f"{args.out} exists; choose another --out, or replace it with --force")
    potential = load_potential(args.model, device="cpu", head=args.head, trust=args.trust)
    require_file_name(potential, args.out)
    save_potential(potential, args.out)
    written = load_potential(args.out, device="cpu", head=potential.head, trust=True)
    if written.content_hash != potential.content_hash:
        args.out.unlink()
        raise WriteError(
            f"{args.model} cannot be converted: {args.out} did not hold the same model"
        )
    if not args.quiet:
        n_weights = written.tangent_size("all")
        precision = str(potential.dtype).removeprefix("torch.")
        console.tell(f"{args.out}: {written!r}, {n_weights:,} weights in {precision}")
