#!/bin/sh
# A client of the documents family with curl: a text, a page and a file go in, and each is waited for.
#
#     sh examples/documents.sh http://127.0.0.1:8000 KEY https://example.com/docs document.pdf
set -eu
base=$1 key=$2 url=$3 file=$4

wait_for() {
  job_id=$(printf '%s' "$1" | sed -n 's/.*"job_id":"\([^"]*\)".*/\1/p')
  tries=0
  while [ "$tries" -lt 240 ]; do
    status=$(curl -sS --fail "$base/ops/jobs/$job_id" -H "x-admin-key: $key")
    case $status in
      *'"status":"finished"'*) printf '%s\n' "$status"; return 0 ;;
      *'"status":"failed"'*) printf '%s\n' "$status"; return 1 ;;
    esac
    tries=$((tries + 1))
    sleep 0.5
  done
  return 1
}

wait_for "$(curl -sS --fail -X POST "$base/knowledge/ingest-text-async" \
  -H "x-api-key: $key" -H "x-role: editor" -H "Content-Type: application/json" \
  -d '{"text":"Large document content...","source":"docs"}')"

wait_for "$(curl -sS --fail -X POST "$base/knowledge/ingest-url-async" \
  -H "x-api-key: $key" -H "x-role: editor" -H "Content-Type: application/json" \
  -d "{\"url\":\"$url\",\"source\":\"web\"}")"

wait_for "$(curl -sS --fail -X POST "$base/knowledge/ingest-file-async" \
  -H "x-api-key: $key" -H "x-role: editor" -F "file=@$file" -F "source=uploads")"
