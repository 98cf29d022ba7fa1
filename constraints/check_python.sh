#!/usr/bin/env bash
# Stops where make would install into an environment of the wrong Python: check_python.sh PYTHON VENV ORIGIN
# ORIGIN is where make has PYTHON from: "file" is its own default, anything else the user's wish.
set -euo pipefail
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }
stop() { echo "make: $1" >&2 && exit 1; }
[ -x "$2/bin/python" ] || [ "$3" != file ] || set -- "$1" "$2" user # a new environment: PYTHON is what counts

if [ "$3" != file ]; then
  command -v "$1" > /dev/null || stop "there is no $1; name an interpreter: PYTHON=python3.12 make ..."
  wanted=$(version "$1")
  case $wanted in 3.11 | 3.12) ;; *) stop "$1 is Python $wanted, and mimigenrec needs 3.11 or 3.12: PYTHON=python3.12 make ..." ;; esac
fi
if [ -x "$2/bin/python" ]; then
  found=$(version "$2/bin/python")
  [ "$found" = "${wanted:-$found}" ] || stop "$2 holds Python $found, and $1 is $wanted; delete $2 and make it anew"
  case $found in 3.11 | 3.12) ;; *) stop "$2 holds Python $found, and mimigenrec needs 3.11 or 3.12; delete it: PYTHON=python3.12 make ..." ;; esac
fi
