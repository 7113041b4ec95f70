"""The commands, and what each can be asked.

A command is a frozen dataclass: its docstring is the help, its fields are the options and
arguments. Modules here import nothing heavy. What a command does is in the module of the same
name beside this folder, which is imported when the command is run: ``labelwise campaign run`` is
declared by ``commands.campaign.CampaignRunCommand`` and done by ``cli.campaign.run_campaign_run``.
"""

from __future__ import annotations

#: The module of each command and the first line of its help, in the order of the help.
COMMANDS = {
    "select": ("select", "Choose the structures of a pool that are most worth labelling."),
    "represent": (
        "represent",
        "Compute the features of structures; a killed run goes on where it was.",
    ),
    "finetune": (
        "finetune",
        "Fine-tune a pretrained model: all weights or some, the best epoch by validation.",
    ),
    "label": (
        "label",
        "Calculate energies and forces of structures, each once, here or in a SLURM queue.",
    ),
    "models": ("inspect", "List the models that --model takes by name."),
    "convert": (
        "convert",
        "Write a model to another kind of file, such as a .pt of weights, which runs no code.",
    ),
    "doctor": ("inspect", "Show versions and devices and run a self-check of about ten seconds."),
    "demo": ("inspect", "Write the embedded reaction pool, to try the other commands on."),
    "geometry": (
        "geometry",
        "Compare what kernels tell apart: families of structures, and places along a path.",
    ),
    "calibrate": (
        "calibrate",
        "Hold each kernel's uncertainty against the pretrained model's errors in energy.",
    ),
    "compare": (
        "compare",
        "Run every method on every pool with every seed, and write the papers' tables.",
    ),
    "summarise": (
        "summarise",
        "Choose the few structures that stand for a data set, and measure how well they do.",
    ),
    "split": (
        "split",
        "Split a data set into training, validation and test sets, and report what leaks.",
    ),
    "check-data": (
        "check_data",
        "Find duplicates, structures that stand alone, and labels that do not fit.",
    ),
    "plan": (
        "plan",
        "Say what 'select' will need: time, memory, disk, cost, and the largest pool that fits.",
    ),
    "store": ("store", "Show what a feature store holds; fails if --verify finds damage."),
    "report": ("report", "Write one self-contained page that shows what was chosen and why."),
    "figures": (
        "figures",
        "Draw what the page of a selection, a campaign or a comparison shows, fit for a paper.",
    ),
    "campaign init": (
        "campaign",
        "Begin a campaign: write its configuration, or check the one that is there.",
    ),
    "campaign run": ("campaign", "Go on with a campaign from wherever it stopped."),
    "campaign cancel": (
        "campaign",
        "Cancel the jobs that a campaign has in a queue; labels that have come are kept.",
    ),
    "campaign status": ("campaign", "Show rounds, labels, errors, what is waiting, time and cost."),
    "campaign export": (
        "campaign",
        "Write a fine-tuned .model for mace-torch, LAMMPS or OpenMM, and its training set.",
    ),
    "data list": ("data", "List the formats that can be read, and the pools that can be built."),
    "data inspect": (
        "data",
        "Say what a file holds: how much of what, ranges of labels, level of theory, licence.",
    ),
    "data build": (
        "data",
        "Make the papers' pools of published files: extended XYZ and a manifest.",
    ),
    "data export": ("data", "Write structures, or some of them, in another format."),
}
#: Commands of several words by their first one.
GROUPS = {
    "campaign": "Select, label, fine-tune, measure, repeat; go on after any interruption.",
    "data": "Published data sets: list formats, inspect files, build pools, convert.",
}
