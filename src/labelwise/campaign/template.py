"""The commented configuration that ``labelwise campaign init --template`` writes."""

from __future__ import annotations

from pathlib import Path

from labelwise.campaign.yaml_files import CONFIG_FILE
from labelwise.errors import WriteError
from labelwise.runtime.files import write_bytes

TEMPLATE = """\
# A Labelwise campaign. Run it with: labelwise campaign run DIRECTORY
# Relative paths begin at this file. Unknown keys are refused. Units: eV, Å, eV/Å.

seed: 0                     # equal seeds give equal campaigns

model:
  path: demo                # a model file, or a name from 'labelwise models'
  device: auto              # auto, cpu, cuda, cuda:1, mps
  dtype: null               # float32 or float64; null takes the model's own
  head: null                # head of a model that has several
  trust: false              # true to load a .model file, which runs code from it

data:
  pool: [pool.extxyz]       # files, globs, file@start:stop:step; anything ASE reads
  train: [train.extxyz]     # labelled already; [] to begin with initial_size below
  valid:                    # chooses the epoch; one of the following, or nothing
    files: [valid.extxyz]
    # fraction: 0.1         # of train
    # from_pool: 50         # labelled in round 0
  test:                     # what the learning curves show; likewise
    files: [test.extxyz]
    split_key: null         # info key of each test structure's split, such as val_id: errors of
                            # each split on its own, too
  replay:                   # structures like those of the pretraining, mixed into each update
    files: []               # so that they are not forgotten
    labels: file            # of the pretraining's level of theory; or model: its own
  retain:                   # others like those: what is forgotten is measured on them
    files: []
    labels: file
  isolated_atoms: null      # a file of single atoms at the labels' level of theory
  energy_key: REF_energy
  forces_key: REF_forces
  stress_key: REF_stress    # of crystals, optional: eV/Å³, or REF_virials; null reads none
  partial_labels: false     # true: structures of train may have energies alone or forces alone

selection:
  rule: lcmd                # pv, lcmd, k-center, top, joint-pv, random, committee-e/-f
  representation: ntk-e     # ntk-e, ntk-f, ntk-ef, activation, ntk-random,
                            # activation-random, soap, morgan, random
  parameters: embedding     # behind the ntk kernels: embedding, readout, products,
                            # interaction, all
  sketch_dim: null
  reduction: fields         # of ntk-f: rms, element-rms, force-norm, fields, moments
  n_probes: 8               # random probes in place of all force tangents; null is exact
  energy_weight: 0.5        # part of the energy in the kernel of ntk-ef
  normalise: null           # cosine, or none: the length of a row counts too (joint-pv)
  shortlist: null           # first keep the K structures of highest posterior variance
  regularisation: null      # of posterior variances; null is 0.3 for joint-pv, else 0.001
  batch_size: 5             # structures a round
  initial_size: 0           # structures that round 0 chooses and labels
  initial_rule: random
  n_reserve: 5              # candidates beyond the batch, in place of failures
  model: current            # features of the fine-tuned model, or of the pretrained one
  batch_atoms: null         # atoms evaluated at once
  max_atoms: null           # larger structures are set aside; null: as memory allows
  members: 3                # of a committee
  diversity: shuffle        # shuffle, bootstrap, scratch
  aggregate: mean           # of committee-f: mean or max over the force components

labeller:
  kind: replay              # the pool is labelled: an offline study
  max_force: 100.0          # a label beyond this is a failed calculation, eV/Å
  max_energy_deviation: 10.0   # from what the composition lets expect, eV/atom
  max_failures_in_a_row: null  # then the run stops, whatever the round; null is
                               # max(20, 2 batches)

  # kind: calculator          # any ASE calculator
  # calculator: tblite.ase.TBLite   # package.module.Class, or a name ASE knows (orca)
  # arguments: {method: GFN2-xTB, verbosity: 0}
  # info_arguments: {}        # argument: info key, for instance {charge: total_charge}
  # n_workers: 2              # calculations at once
  # n_threads: 1              # threads of each
  # time_limit_s: 3600        # then it is killed
  # n_retries: 1
  # level: null               # name of the level of theory; null: of calculator and arguments
  # store: null               # folder of labels that are never calculated again

  # kind: slurm               # the same in jobs of SLURM: calculator, arguments, n_threads, ...
  # store: label_store        # where labels come, on a file system that the nodes see
  # partition: null
  # sbatch: {}                # any other option, such as {account: chem, mem-per-cpu: 4G}
  # structures_per_job: auto
  # workers_per_job: 1        # calculations at once on a node
  # time: null                # such as 4h; null is the partition's
  # max_time: null            # not passed when a job is submitted again with more time
  # max_jobs: 50              # that wait or run at once
  # setup: []                 # lines of shell, such as "module load orca"
  # retries: 2                # of structures whose job ended without their label
  # poll_s: 30                # SLURM is asked at most so often
  # settle_s: 60              # files of a job that ended are waited for so long

  # kind: files               # writes round_003/to_label.extxyz, goes on when
  # energy_key: REF_energy    # round_003/labelled.extxyz is there
  # forces_key: REF_forces
  # stress_key: REF_stress
  # tolerance: 0.001          # of returned coordinates, Å

finetune:
  schedule: reaction-paths  # about 1,000 updates a round; or fixed: 50 epochs, batch 16
  start: pretrained         # each round anew; or last: from the last round's model; or scratch
  batch_size: null          # null is the schedule's
  learning_rate: null
  epochs: null
  max_updates: null
  energy_weight: 10.0
  forces_weight: 10.0
  stress_weight: 100.0      # of structures that have stress labels; 0 leaves them out
  replay_weight: 1.0        # what the loss of data.replay counts
  replay_head: null         # pt_head fits data.replay with a head of its own (MACE)
  loss_fixed_forces: count  # exclude leaves the forces of fixed atoms out of the loss
  train_blocks: [all]       # or blocks, of MACE: readout, products, interaction, embedding
  block_rates: null         # factors of the learning rate, such as {embedding: 0.1}
  lora_rank: null           # train changes of this rank to each matrix of weights (LoRA)
  lora_alpha: null          # changes are multiplied by this / rank; null is rank
  anchor: none              # l2, ewc: pull weights to where they started
  anchor_weight: null       # null is 0.001 of l2, 0.1 of ewc
  weight_decay: 0.0         # of AdamW
  huber_delta: 0.01         # eV/atom and eV/Å
  annealing: linear         # or none
  amsgrad: true
  ema_decay: 0.99
  clip_norm: 10.0
  early_stop_patience: null
  reference_energies: auto  # refit, labelled, isolated, given, checkpoint
  compiled: false           # updates as machine code, 2 x as fast: CPU and a C++ compiler

measure:
  fixed_forces: count       # exclude leaves forces of fixed atoms (move_mask) out of all errors
  energy_errors: total      # or per-atom: what tables and curves show, for sets of many sizes

stop:                       # whichever comes first
  rounds: 10                # after round 0
  labels: null              # calculations, failed ones too
  hours: null               # of all stages
  target: {}                # on the test set, such as {forces_rmse: 50.0} in meV/Å
  plateau: null             # such as {rounds: 3, improvement: 0.02}
"""


def write_template(directory: Path) -> Path:
    """Write the commented configuration into a directory.

    Returns:
        The file's path.

    Raises:
        WriteError: There is a configuration already, or it cannot be written.
    """
    path = directory / CONFIG_FILE
    if path.exists():
        raise WriteError(f"{path} exists; edit it, or choose another directory")
    write_bytes(path, TEMPLATE.encode(), durable=True)
    return path
