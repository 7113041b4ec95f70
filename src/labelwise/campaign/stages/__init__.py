"""The stages of a round: select, label, fine-tune, measure."""
