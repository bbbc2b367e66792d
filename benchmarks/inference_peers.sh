#!/bin/sh
# The peers' environment for `python -m benchmarks --only inference`: sh benchmarks/inference_peers.sh FOLDER, outside
# the repository; then SARTORIUS_PEERS=FOLDER/bin/python. The first run downloads published weights where it can.
set -eu
"${PYTHON:-python3.11}" -m venv "$1"
# StarDist 0.9 was compiled for NumPy 1 and asks for pkg_resources
"$1/bin/pip" install --quiet 'stardist==0.9.*' tensorflow-cpu 'cellpose<4' 'numpy<2' 'setuptools<81' pillow
