#!/usr/bin/env bash
# `make translations`: takes the texts of the templates into the .po files and compiles them. New texts are left empty there.
set -euo pipefail
# shellcheck source=scripts/environments.sh
source "$(dirname "$0")/environments.sh"

ensure_environment test
pybabel=$(dirname "$(python_of test)")/pybabel
texts=$(mktemp)
trap 'rm -f "$texts"' EXIT
"$pybabel" --quiet extract --mapping-file web/babel.cfg --sort-output --no-location --omit-header --width 120 --output "$texts" web
"$pybabel" --quiet update --input-file "$texts" --output-dir web/translations --no-fuzzy-matching --ignore-obsolete \
  --ignore-pot-creation-date --width 120
"$pybabel" --quiet compile --directory web/translations
