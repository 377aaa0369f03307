#!/usr/bin/env bash
# A client of the ingestion family with nothing but curl: submit, watch the worker, read the history.
#
#     PHAROS_TOKEN=… examples/ingestion.sh http://127.0.0.1:8000 github.com/user/repo
set -euo pipefail

base="$1/api/v1/ingestion"
repo="$2"

# 1. Submit the repository.
answer="$(curl -sS --fail-with-body -X POST "$base/ingest/$repo" \
  -H "Authorization: Bearer $PHAROS_TOKEN")"
echo "$answer"
job_id="$(sed -E 's/.*"job_id":([0-9]+).*/\1/' <<<"$answer")"

# 2. Poll the worker's status, until the history knows how the job ended.
for _ in $(seq 150); do
  curl -sS --fail-with-body "$base/worker/status"
  echo
  # 3. Check the job history.
  history="$(curl -sS --fail-with-body "$base/jobs/history?limit=10")"
  job="$(grep -oE "\{\"job_id\":$job_id,[^{}]*\}" <<<"$history" || true)"
  case "$job" in
    *'"status":"complete"'*) echo "$job"; exit 0 ;;
    *'"status":"failed"'* | *'"status":"skipped"'* | *'"status":"cancelled"'*) echo "$job"; exit 1 ;;
  esac
  sleep 2
done
exit 1
