#!/usr/bin/env bash
# Every way to send usage with curl, and every way to ask for it.
#
#   odometer dev &
#   examples/curl.sh [http://127.0.0.1:7070]
#
# Each request answers once the log has its records durably: 202 with `stored` and
# `refused`. Sending the same ids again is safe, and counts nothing: try it, run this
# script twice.
set -euo pipefail

url="${1:-http://127.0.0.1:7070}"
now="$(date -u +%Y-%m-%dT%H:%M:%SZ)"
month="$(date -u +%Y-%m-01T00:00:00Z)"

say() { printf '\n\n== %s\n' "$*"; }
send() { curl --silent --show-error --fail-with-body "$url/v1/events" "$@"; }
# --get makes a query of --data-urlencode.
ask() { curl --silent --show-error --fail-with-body --get "$@"; }

say "native JSON: one record"
# `quantity` is in the meter's unit, a number or decimal text. Without `time`, it
# happened when the log took it.
send --header 'content-type: application/json' --data '{
  "id": "call-1", "source": "curl", "tenant": "acme", "meter": "llm.prompt_tokens", "quantity": 1250,
  "subject": "alice", "dimensions": {"model": "large"}
}'

say "native JSON: several records; one event may feed several meters under one id"
send --header 'content-type: application/json' --data '[
  {"id": "call-2", "source": "curl", "tenant": "acme", "meter": "llm.prompt_tokens", "quantity": "900"},
  {"id": "call-2", "source": "curl", "tenant": "acme", "meter": "llm.generated_tokens", "quantity": "77"},
  {"id": "call-2", "source": "curl", "tenant": "acme", "meter": "api_call", "quantity": 1}
]'

say "NDJSON: one record a line, the way to send many; here compressed"
printf '%s\n' \
  '{"id": "run-1", "source": "curl", "tenant": "acme", "meter": "agent_minute", "quantity": 10000}' \
  '{"id": "run-2", "source": "curl", "tenant": "globex", "meter": "agent_minute", "quantity": 9321}' \
  | gzip | send --header 'content-type: application/x-ndjson' --header 'content-encoding: gzip' --data-binary @-

say "CloudEvents, structured mode: the event's type decides which meters it feeds"
send --header 'content-type: application/cloudevents+json' --data '{
  "specversion": "1.0", "id": "event-1", "source": "/agents/7", "type": "odometer.llm", "tenant": "acme",
  "subject": "alice", "time": "'"$month"'",
  "data": {"model": "large", "prompt_tokens": 640, "generated_tokens": 51}
}'

say "CloudEvents, batch mode"
send --header 'content-type: application/cloudevents-batch+json' --data '[
  {"specversion": "1.0", "id": "event-2", "source": "/agents/7", "type": "odometer.api_call", "tenant": "acme"},
  {"specversion": "1.0", "id": "event-3", "source": "/agents/7", "type": "odometer.api_call", "tenant": "globex"}
]'

say "CloudEvents, binary mode: attributes are headers, the body is the data"
send --header 'ce-specversion: 1.0' --header 'ce-id: event-4' --header 'ce-source: /agents/7' \
  --header 'ce-type: odometer.agent_minute' --header 'ce-tenant: acme' \
  --header 'content-type: application/json' --data '{"duration_ms": 4200}'

say "where OpenMeter clients post: the subject is the tenant"
curl --silent --show-error --fail-with-body "$url/api/v1/events" \
  --header 'content-type: application/cloudevents+json' --data '{
  "specversion": "1.0", "id": "event-5", "source": "/agents/7", "type": "odometer.api_call", "subject": "acme"
}'

say "live: what the tenant has used so far, from memory, with its age"
ask "$url/v1/tenants/acme/usage"

# Totals are committed about once a second, and raw records follow them.
sleep 3

say "usage per hour and model, from rollups"
ask "$url/v1/usage" --data-urlencode tenant=acme --data-urlencode meter=llm.prompt_tokens \
  --data-urlencode window=hour --data-urlencode group_by=model \
  --data-urlencode "from=$month" --data-urlencode "to=$now"

say "records with their verdicts: what became of call-2"
ask "$url/v1/records" --data-urlencode tenant=acme --data-urlencode id=call-2

say "period totals, as billing reads them"
ask "$url/v1/totals" --data-urlencode tenant=acme
echo
