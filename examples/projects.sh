#!/usr/bin/env bash
# A client of the projects family with nothing but curl: ingest, watch the history, ask.
#
#     examples/projects.sh http://127.0.0.1:8000 github.com/o/r "How does the Context class work?"
#
# It sends no credential, as the family's clients do: the installation sets PHAROS_ANONYMOUS=default:editor.
set -euo pipefail

here="$1/projects/default"
repo="$2"
question="$3"

post() { curl -sS --fail-with-body -X POST "$here/$1" -H 'Content-Type: application/json' -d "$2"; }

answer="$(post ingest/github "{\"repo\": \"$repo\", \"dataset\": \"from-shell\", \"branch\": \"main\", \"scope\": \"project\"}")"
echo "$answer"
job_id="$(sed -E 's/.*"jobId":"([^"]+)".*/\1/' <<<"$answer")"

for _ in $(seq 150); do
  history="$(curl -sS --fail-with-body "$here/ingest/history")"
  job="$(grep -oE "\{\"id\":\"$job_id\",[^{}]*\}" <<<"$history" || true)"
  case "$job" in
    *'"status":"completed"'*) break ;;
    *'"status":"failed"'* | *'"status":"cancelled"'* | *'"status":"skipped"'*) echo "$job"; exit 1 ;;
  esac
  sleep 2
done
echo "$job"

found="$(post query "{\"query\": \"$question\", \"k\": 5}")"
echo "$found"
grep -q '"file":' <<<"$found"
