#!/bin/sh
# bench.sh FILE OPTION...: sorts FILE with these options of sort, and prints how long that took as JSON.
# Exits with status 3 if the result is not sorted.
set -eu
file=$1
shift
sorted=$(mktemp)
trap 'rm -f "$sorted"' EXIT

begun=$(date +%s%N)
sort "$@" -- "$file" > "$sorted"
ended=$(date +%s%N)

sort --check=quiet -- "$sorted" || exit 3
echo "{\"seconds\": $((ended - begun))e-9, \"lines\": $(wc -l < "$sorted")}"
