"""Random numbers that depend on what they are for, not on what was drawn before."""

from __future__ import annotations

import hashlib


def derive_seed(campaign_seed: int, n_round: int, purpose: str) -> int:
    """Return the seed of one purpose in one round.

    A resumed campaign draws the same numbers as an uninterrupted one, because no generator
    lives from one stage to the next.

    Args:
        campaign_seed: The configuration's seed.
        n_round: The round, from 0.
        purpose: What it is for, such as ``select`` or ``finetune``.

    Returns:
        A number below 2³¹, which every generator takes.
    """
    text = f"{campaign_seed}/{n_round}/{purpose}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 33
