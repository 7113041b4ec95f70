"""Names of rules that others ask for by name, and of what the structures of a batch carry."""

#: The rule that takes structures as sets of rows, not as rows.
JOINT_RULE = "joint-pv"
#: The rules whose picks come out of clusters.
CLUSTER_RULES = ("lcmd", "k-center")
#: Info key of a structure's predicted force error, and array key of its atoms', eV/Å.
FORCE_STD_KEY = "labelwise_force_std"
