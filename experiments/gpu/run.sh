#!/bin/bash
# On a machine with one GPU and no network, in the project's root: bash experiments/gpu/run.sh A | B | C
#   before, where packages can be had: make gpu-wheels
#   A everything, 470 s · B compile and training, 200 s · C CTranslate2 (cuBLAS 13 under cuBLAS 12's name)
# What it measures lies in $OUT, at most 8 files beside log.txt.
set -o pipefail
: "${OUT:=/tmp/gpu-study}"
mkdir -p "$OUT"
RUN=${1:-A}
WHEELS=build/wheels
[ "$RUN" = C ] && WHEELS=build/wheels-ctranslate2
PY=${PY:-python3}
SITE=${SITE:-/tmp/site}
$PY -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$SITE" $WHEELS/*.whl || exit 7
export PYTHONPATH=$SITE:$PWD PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
if [ "$RUN" = C ] && $PY -c "import nvidia.cu13" 2>/dev/null; then
  SHIM=/tmp/shim
  mkdir -p $SHIM
  LIB=$($PY -c 'import nvidia.cu13,os; print(os.path.join(list(nvidia.cu13.__path__)[0],"lib"))')
  ln -sf "$LIB/libcublas.so.13" $SHIM/libcublas.so.12
  ln -sf "$LIB/libcublasLt.so.13" $SHIM/libcublasLt.so.12
  export LD_LIBRARY_PATH=$SHIM:$LIB:$LD_LIBRARY_PATH
fi
$PY -m experiments gpu-study --run "$RUN" --out "$OUT" $EXTRA 2>&1 | tee "$OUT/log.txt"
