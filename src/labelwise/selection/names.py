"""Names of what the structures of a batch carry."""

#: Info key of a structure's predicted force error, and array key of its atoms', eV/Å.
FORCE_STD_KEY = "labelwise_force_std"
