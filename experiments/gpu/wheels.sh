#!/bin/bash
# In the project's root, where packages can be had: gather in .whl what a bare GPU image (Python 3.12, torch 2.11,
# transformers 5.17 or later, pandas, scipy, pyarrow, sacrebleu) lacks, about 30 MB. Ray's wheel (79 MB) is too large to
# bring along, so searches run with --serial there.
set -e
mkdir -p .whl .whl-ct2
pinned() { grep -i "^$1==" constraints.txt || echo "$1"; }
fetch() { # FOLDER NAME...
  folder=$1
  shift
  for name in "$@"; do
    python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
      --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
      --platform manylinux2014_x86_64 -d "$folder" "$(pinned "$name")" || echo "missing: $name"
  done
}
fetch .whl alembic annotated-doc annotated-types bottle click colorlog datasets defusedxml dill evaluate filelock jiwer Mako \
  markdown-it-py mdurl multiprocess nltk optuna optuna-dashboard plotly psutil pydantic pydantic_core Pygments RapidFuzz \
  rich shellingham SQLAlchemy typer typing_extensions typing-inspection
python3 -m pip wheel -q --no-deps -w .whl "$(pinned rouge_score)"
fetch .whl-ct2 annotated-types ctranslate2 pydantic pydantic_core typing_extensions typing-inspection
du -sh .whl .whl-ct2
