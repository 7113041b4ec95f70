#!/bin/bash
# A campaign whose labels come from SLURM, driven by short jobs: sbatch campaign_slurm.sh
# Each one selects and fine-tunes as far as it gets, submits calculations and leaves; it comes
# back until the campaign has ended, so that no GPU waits for labels.
#SBATCH --job-name=campaign
#SBATCH --nodes=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus=1
#SBATCH --time=08:00:00

set -uo pipefail

# my-campaign/campaign.yaml has:
#   labeller:
#     kind: slurm
#     calculator: orca
#     arguments: {orcasimpleinput: "wB97X-D3 def2-TZVP EnGrad"}
#     info_arguments: {charge: total_charge, mult: total_spin}
#     partition: cpu
#     workers_per_job: 8
#     time: 4h
#     setup: ["module load orca"]

labelwise campaign run my-campaign --no-wait
code=$?
if [ "$code" -eq 4 ]; then # labels are being made
  sbatch --begin=now+30minutes campaign_slurm.sh
elif [ "$code" -ne 0 ]; then
  exit "$code"
fi
