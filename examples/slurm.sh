#!/bin/bash
#SBATCH --job-name=rsprune
#SBATCH --output=rsprune-%j.log
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
# Prune a collection on the nodes of a SLURM cluster. The arguments are those of `rsprune prune`:
#
#   PARTS=16 SBATCH_OPTIONS='--time=12:00:00 --cpus-per-task=16 --gpus=1' \
#       examples/slurm.sh /data/pool-*.tar --reference aid --keep 0.15 --out /shared/run
#
# The collection and --out lie where every node sees them. Three jobs wait for one another: an array job that measures
# the entropies and embeds the reference, one that embeds what Stage I keeps, and one that chooses. When a job has failed
# or its time was over, run this script again with the same arguments: it goes on with what is left.
set -euo pipefail

if [[ ${1:-} == in-job ]]; then
    exec rsprune prune --threads "${SLURM_CPUS_PER_TASK:-$(nproc)}" "${@:2}"
fi

submit() {
    # shellcheck disable=SC2086 # the options are several words
    sbatch --parsable --kill-on-invalid-dep=yes ${SBATCH_OPTIONS:-} $1 "$0" in-job "${@:2}"
}

measured=$(submit "--array=1-${PARTS:-4}" "$@" --part slurm)
embedded=$(submit "--array=1-${PARTS:-4} --dependency=afterok:$measured" "$@" --part slurm)
chosen=$(submit "--dependency=afterok:$embedded" "$@")
echo "jobs $measured, $embedded and $chosen: squeue --me shows them"
