#!/bin/sh
# A client of the resources family with curl: a repository is submitted, a text goes in, is read and deleted.
#
#     sh examples/resources.sh http://127.0.0.1:8000 TOKEN https://github.com/o/r
set -eu
base=$1 token=$2 repo=$3

call() {
  method=$1 path=$2
  shift 2
  curl -sS --fail -X "$method" "$base$path" \
    -H "Content-Type: application/json" -H "Authorization: Bearer $token" "$@"
}

printf 'Repository: %s\n' "$(call POST /resources/ingest-repo -d "{\"git_url\": \"$repo\"}")"
printf 'For a user: %s\n' "$(call POST /ingest \
  -d "{\"repo_url\": \"$repo\", \"user_id\": \"1c3c6cb0-4c10-46ba-b9ad-8ca82fc008fa\"}")"

created=$(call POST /resources -d '{
  "title": "pharos README",
  "content": "The lighthouse of Alexandria.",
  "url": "https://github.com/ram-tewari/pharos/blob/main/README.md",
  "resource_type": "PRACTICE"
}')
id=$(printf '%s' "$created" | sed -n 's/.*"id":"\([^"]*\)","title".*/\1/p')
tries=0
until resource=$(call GET "/resources/$id") && printf '%s' "$resource" | grep -q '"status":"completed"'; do
  case $resource in *'"status":"failed"'*) printf '%s\n' "$resource"; exit 1 ;; esac
  tries=$((tries + 1))
  [ "$tries" -lt 240 ] || exit 1
  sleep 0.5
done
printf 'Resource: %s\n' "$resource"
printf 'All of them: %s\n' "$(call GET '/resources?limit=10&type=PRACTICE')"
call DELETE "/resources/$id"
echo 'Deleted.'
