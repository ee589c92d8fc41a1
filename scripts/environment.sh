# Sourced by the scripts beside it: `install EXTRAS` makes .venv and installs Myna into it, once.
# A second call does nothing unless pyproject.toml, constraints.txt or the extras changed.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

python_for_venv() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer is needed and was not found; install it, or name it: PYTHON=/path/to/python $0" >&2
    return 2
}

install() {
    local extras=$1 python stamp
    if [ ! -x .venv/bin/python ]; then
        python=$(python_for_venv) || exit 2
        echo "== making .venv with $("$python" --version)"
        "$python" -m venv .venv
    fi
    stamp="$extras $(cat pyproject.toml constraints.txt | .venv/bin/python -c \
        'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
    if ! grep -qxF "$stamp" .venv/myna-installed 2>/dev/null; then
        echo "== installing Myna and what it needs into .venv (once; a minute or more)"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".$extras"
        echo "$stamp" >>.venv/myna-installed
    fi
}
