"""The active-learning loop: select, label, fine-tune, measure, repeat, and lose nothing."""
