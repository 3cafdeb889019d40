# Sourced by the scripts of this folder: makes .venv, once, and points $venv at it.
#
#   environment [extra ...]     installs the package with these extras of setup.cfg
#
# Needs Python 3.11 or newer and a package index; $PYTHON chooses the interpreter. Everything is
# installed at the versions of constraints.txt. A change of setup.cfg or of the constraints
# installs again. Several processes may call this at once: one installs, the others wait.

root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd)
venv=$root/.venv
# The packages of another Python, a conda's or a module's, are none of this one's.
unset PYTHONPATH PYTHONHOME

environment_python() {
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
            2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "error: no Python from 3.11 to 3.13 found; install one, set PYTHON=/path/to/python," \
        "or install into SCT's own Python (docs/install.md)" >&2
    return 1
}

environment_install() {
    python=$(environment_python) || return 1
    echo "Setting up $venv for: ${*:-segmenting} (a few minutes, once)" >&2
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || return 1
    extras=$(printf '%s,' "$@")
    target="$root${1:+[${extras%,}]}"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$root/constraints.txt" --editable "$target" >&2
}

environment() {
    state=$(cat "$root/setup.cfg" "$root/constraints.txt" | cksum)
    for extra in segment "$@"; do
        [ "$(cat "$venv/.with-$extra" 2>/dev/null)" = "$state" ] || break
        extra=
    done
    [ -z "$extra" ] && return 0
    if ! [ -w "$root" ]; then
        echo "error: $root cannot be written and is not set up for: ${*:-segmenting}; its owner" \
            "sets it up by calling this command once" >&2
        return 1
    fi
    if command -v flock >/dev/null && [ -z "${ENVIRONMENT_LOCKED:-}" ]; then
        exec 9>"$root/.venv.lock" && flock 9
        ENVIRONMENT_LOCKED=1 environment "$@"
        status=$?
        exec 9>&-
        return $status
    fi
    environment_install "$@" || return 1
    for extra in segment "$@"; do
        printf '%s\n' "$state" >"$venv/.with-$extra"
    done
}
