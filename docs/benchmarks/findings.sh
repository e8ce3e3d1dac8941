#!/bin/sh
# The runs of docs/findings.md. Resumable: the same command goes on where it was stopped.
#
#     sh docs/benchmarks/findings.sh NAME DATA_DIR OUT
#
# NAME: digits, mnist1k, mnist10k, cifar5k or tiny20. DATA_DIR: where the files lie, in the way of `maldrop --data-dir`.
# OUT: the folder for the runs. Then: python docs/benchmarks/findings.py OUT
set -e
name=$1 data=$2 out=$3
rhos=64,256 rates=0.5,0.8,0.9
case $name in
digits) rhos=64,256,1024 rates=0.3,0.5,0.8,0.9 images="--tune-split 0.2" ;;
mnist1k) images="--dataset mnist --data-dir $data --train-images 1000 --tune-split 0.05 --epochs 20" ;;
mnist10k) images="--dataset mnist --data-dir $data --train-images 10000 --tune-split 0.05" ;;
cifar5k) images="--dataset imagefolder --data-dir $data --train-images 5000 --tune-split 0.05" ;;
tiny20) images="--dataset tiny-imagenet --data-dir $data --image-size 32 --tune-split 0.1" ;;
*) echo "$name is none of digits, mnist1k, mnist10k, cifar5k, tiny20" >&2 && exit 2 ;;
esac
hidden="occlude=0.5 occlude-centre=0.25 noise=0.2 blur=0.1 neurons=0.9 worst-neurons=16,64,256"
sweep() {
    # shellcheck disable=SC2086
    maldrop sweep --out "$out" --seeds "${SEEDS:-10}" --workers 2 --threads 1 --keep-weights \
        --robustness "$hidden" $images "$@"
}
sweep --dropout vanilla --p $rates # none is added
sweep --dropout maldrop --selector heuristic,gradient,joint --rho $rhos
sweep --dropout vanilla+maldrop --selector gradient --rho $rhos
sweep --dropout random --rho 256
